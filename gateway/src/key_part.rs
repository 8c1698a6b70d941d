//! Parts of keys: escaped, or hashed.
