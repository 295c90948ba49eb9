//! The examples and the reference page keep up with the code.

use std::path::Path;

use crate::scene::Scene;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
}

/// The examples with their names, and whether each is for the agent; its first line says so.
fn examples() -> Vec<(String, String, bool)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut examples = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
        let text = std::fs::read_to_string(&path).expect("text");
        let is_for_agent = text.starts_with("# Agent: ");
        assert!(is_for_agent || text.starts_with("# Client: "), "{name}: its first line does not say for whom it is");
        examples.push((name, text, is_for_agent));
    }
    examples
}

/// Sets every variable that the text takes a secret from.
fn with_secrets(scene: Scene, text: &str) -> Scene {
    let names = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (key, value) = line.split_once(" = \"")?;
        key.ends_with("_env").then(|| value.split('"').next())?
    });
    names.fold(scene, |scene, name| scene.variable(name, "an example"))
}

#[test]
fn every_example_is_a_whole_configuration_for_whom_it_says() {
    let examples = examples();
    assert!(examples.len() >= 7, "{}", examples.len());
    for (name, text, is_for_agent) in examples {
        // An agent reads the tables of clients too; the wrapper's tests read the examples by the wrapper's rules.
        let scene = if is_for_agent { Scene::with_config(&text) } else { Scene::with_backend_and(&text) };
        // The examples' names are made of users that every host has.
        let settings = with_secrets(scene, &text).try_load().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(is_for_agent || settings.exec != Default::default(), "{name}");
    }
}

#[test]
fn the_reference_page_or_that_of_the_back_ends_names_every_example() {
    let pages = [read("../docs/configuration.md"), read("../docs/backends/README.md")].concat();
    for (name, ..) in examples() {
        assert!(pages.contains(&format!("config/examples/{name})")), "{name}");
    }
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
        if let Err(error) = with_secrets(scene, block).try_load() {
            panic!("{error}\n{block}");
        }
    }
}
