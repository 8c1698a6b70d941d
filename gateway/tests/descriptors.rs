//! The descriptors that reflection shows are those of the files that envoy-types was generated from.
//! `UPDATE=1 cargo test -p redis-rl-gateway --test gateway descriptors` writes them anew, after a new version of it.

use std::path::{Path, PathBuf};
use std::process::Command;

const FILE: &str = "envoy/service/ratelimit/v3/rls.proto";

#[test]
fn they_are_those_of_envoy_types() {
    let roots = [
        "data-plane-api",
        "googleapis",
        "protoc-gen-validate",
        "xds",
        "cel-spec/proto",
        "opentelemetry-proto",
        "client_model",
    ];
    let protos = envoy_types().join("proto");
    let includes = roots.map(|root| protos.join(root)).into_iter().filter(|path| path.is_dir());
    let mut compiler = protox::Compiler::new(includes).unwrap();
    compiler.include_imports(true).include_source_info(false).open_file(FILE).unwrap();
    let made = compiler.encode_file_descriptor_set();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/grpc/rls.binpb");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(
        std::fs::read(&path).unwrap() == made,
        "{} is not what {FILE} compiles to: see the head of this file",
        path.display()
    );
}

/// Where cargo keeps the package.
fn envoy_types() -> PathBuf {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    // Packages of other platforms are not here, and need not be.
    let metadata =
        cargo(&["metadata", "--format-version=1", "--frozen", "--filter-platform", host]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "envoy-types").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

fn cargo(arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
