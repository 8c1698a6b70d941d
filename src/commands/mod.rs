//! The commands, one file each, and the one table that declares them.
//!
//! A command is a recipe: parse, open, decide, store, replicate, reply. The five that decide on one key share theirs
//! (`decide`); their files say which options they take.

pub mod decide;
pub mod errors;
pub mod fixedwindow;
pub mod info;
pub mod internal;
pub mod leakybucket;
pub mod multi;
pub mod options;
pub mod peek;
pub mod refund;
pub mod reset;
pub mod sliding;
pub mod slidinglog;
pub mod throttle;
pub mod tokenbucket;

mod table;

pub use table::TABLE;
