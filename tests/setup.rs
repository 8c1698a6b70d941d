//! `scripts/setup` installs libclang exactly if bindgen would not find it: each row is a system of files, and whether it is enough.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by a panic")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// The beginning of a library for a machine of 64 or of 32 bits.
const LIBRARY: &[u8] = b"\x7fELF\x02\x01\x01";
const LIBRARY_OF_32_BITS: &[u8] = b"\x7fELF\x01\x01\x01";

/// A Debian 12: its library in a folder of its architecture, and the headers that go with it.
const HEADERS: &str = "usr/lib/llvm-14/lib/clang/14.0.6/include/stddef.h";
const IN_ARCHITECTURE: &str = "usr/lib/x86_64-linux-gnu/libclang-14.so.14.0.6";

fn put(root: &Path, file: &str, contents: &[u8]) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

/// A system with these files: headers are headers, everything else is a library.
fn system(files: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        put(root.path(), file, if file.ends_with(".h") { b"" } else { LIBRARY });
    }
    root
}

/// Whether the script finds all that bindgen needs in this system, with variables of the environment.
fn finds(root: &Path, variables: &[(&str, &Path)]) -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/libclang");
    let mut script = Command::new(script);
    for name in ["LIBCLANG_PATH", "LD_LIBRARY_PATH", "LIBRARY_PATH"] {
        script.env_remove(name);
    }
    script.env("ROOT", root).env("LLVM_CONFIG_PATH", root.join("none"));
    let output = script.envs(variables.iter().copied()).output().unwrap();
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    output.status.success()
}

/// A program that answers `llvm-config --prefix` with this folder.
fn llvm_config(root: &Path, prefix: &Path) {
    let answer = format!("#!/bin/sh\n[ \"$*\" = --prefix ] && echo '{}'\n", prefix.display());
    put(root, "llvm-config", answer.as_bytes());
    let file = root.join("llvm-config");
    fs::set_permissions(file, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn libclang_is_found_where_bindgen_looks_and_under_the_names_that_it_knows() {
    for (library, is_found) in [
        (IN_ARCHITECTURE, true),
        ("usr/lib/aarch64-linux-gnu/libclang.so.1", true),
        ("usr/lib/llvm-19/lib/libclang-19.so.1", true),
        ("usr/lib64/libclang.so", true),
        ("usr/lib/libclang-14.so", true),
        ("usr/local/lib/libclang.so", true),
        ("usr/local/llvm19/lib/libclang.so", true),
        // Other libraries of clang's, and what is none.
        ("usr/lib/x86_64-linux-gnu/libclang-cpp.so.14", false),
        ("usr/lib/llvm-14/lib/libclang-cpp.so", false),
        ("usr/lib/llvm-14/lib/libclangAST.a", false),
        ("usr/lib/llvm-14/lib/libclang.a", false),
        // A folder too deep.
        ("usr/lib/a/b/c/libclang.so", false),
        ("opt/lib/libclang.so", false),
    ] {
        let root = system(&[library, HEADERS]);
        assert_eq!(finds(root.path(), &[]), is_found, "{library}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn neither_the_library_nor_the_headers_are_enough_alone() {
    for (files, is_enough) in [
        (&[][..], false),
        (&[IN_ARCHITECTURE], false),
        (&[HEADERS], false),
        (&[IN_ARCHITECTURE, HEADERS], true),
        (&[IN_ARCHITECTURE, "usr/lib/clang/14/include/stddef.h"], true),
        (&[IN_ARCHITECTURE, "usr/lib/gcc/x86_64-linux-gnu/12/include/stddef.h"], false),
    ] {
        assert_eq!(finds(system(files).path(), &[]), is_enough, "{files:?}");
    }
}

#[test]
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn a_library_that_cannot_be_loaded_is_none() {
    let root = system(&[HEADERS]);
    put(root.path(), "usr/lib/i386-linux-gnu/libclang.so.1", LIBRARY_OF_32_BITS);
    put(root.path(), "usr/lib/libclang.so", b"INPUT(libclang.so.1)");
    symlink("gone.so", root.path().join("usr/lib/libclang-14.so")).unwrap();
    assert!(!finds(root.path(), &[]));
    put(root.path(), IN_ARCHITECTURE, LIBRARY);
    assert!(finds(root.path(), &[]));
}

#[test]
#[cfg(target_os = "linux")]
fn llvm_config_proves_nothing_but_is_asked() {
    // Debian's package `llvm` alone.
    let llvm = "opt/llvm/lib";
    let root = system(&[&format!("{llvm}/libclang-cpp.so.14"), &format!("{llvm}/libLLVM-14.so")]);
    llvm_config(root.path(), &root.path().join("opt/llvm"));
    let config = root.path().join("llvm-config");
    assert!(!finds(root.path(), &[("LLVM_CONFIG_PATH", &config)]));

    put(root.path(), &format!("{llvm}/libclang.so"), LIBRARY);
    put(root.path(), &format!("{llvm}/clang/14/include/stddef.h"), b"");
    assert!(finds(root.path(), &[("LLVM_CONFIG_PATH", &config)]));
    assert!(!finds(root.path(), &[]), "nobody else looks there");
}

#[test]
#[cfg(target_os = "linux")]
fn what_the_loader_is_told_counts_and_libclang_path_counts_alone() {
    let root = system(&["opt/a b/libclang.so", "opt/none/libclang-cpp.so", HEADERS]);
    let (some, none) = (root.path().join("opt/a b"), root.path().join("opt/none"));
    for variable in ["LD_LIBRARY_PATH", "LIBRARY_PATH", "LIBCLANG_PATH"] {
        assert!(finds(root.path(), &[(variable, &some)]), "{variable}");
        assert!(!finds(root.path(), &[(variable, &none)]), "{variable}");
    }
    let both = format!("{}:{}", none.display(), some.display());
    assert!(finds(root.path(), &[("LD_LIBRARY_PATH", Path::new(&both))]));
    assert!(finds(root.path(), &[("LIBCLANG_PATH", &some.join("libclang.so"))]));

    put(root.path(), IN_ARCHITECTURE, LIBRARY);
    assert!(finds(root.path(), &[]));
    assert!(!finds(root.path(), &[("LIBCLANG_PATH", &none)]), "bindgen looks nowhere else");
}
