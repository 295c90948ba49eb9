//! The examples and the reference page keep up with the code.

use std::path::Path;

use crate::scene::Scene;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
}

#[test]
fn every_example_is_a_whole_configuration() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut examples = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        // The example's names are made of users that every host has.
        let scene = Scene::with_config(&std::fs::read_to_string(&path).expect("text"))
            .variable("KEYSIDE_STORE_KEY", "an example");
        let settings = scene.try_load().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!settings.backends.is_empty());
        examples += 1;
    }
    assert!(examples >= 2);
}

#[test]
fn every_toml_block_of_the_reference_page_is_a_whole_configuration() {
    let page = read("../docs/configuration.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().expect("an end")).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let scene =
            if block.contains("[backend.") { Scene::with_config(block) } else { Scene::with_backend_and(block) };
        let scene = scene.variable("KEYSIDE_STORE_KEY", "an example");
        if let Err(error) = scene.try_load() {
            panic!("{error}\n{block}");
        }
    }
}
