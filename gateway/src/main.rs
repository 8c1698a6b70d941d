//! `redis-rl-gateway`: see `redis-rl-gateway --help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use redis_rl_gateway::cli::{self, Cli, Command};
use redis_rl_gateway::serve;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let printed = match Cli::parse().command {
        Command::Serve(serve) => serve::run(*serve)
            .map(|()| String::new())
            .map_err(|error| format!("redis-rl-gateway: {error:#}\n")),
        Command::Check(check) => cli::check(&check.path, &check.reading.options()),
        Command::Explain(explain) => cli::explain(&explain),
    };
    match printed {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
    }
}
