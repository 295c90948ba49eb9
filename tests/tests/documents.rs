//! What the documents say of the tests.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

fn sources(directory: &Path, into: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, into);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(entry).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all = String::new();
    for package in ["protocol", "config", "agent", "exec-wrapper", "cli", "tests"] {
        sources(&root.join(package), &mut all);
    }
    let page = std::fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let mut named = 0;
    let mut missing = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let Some(tests) = row.trim_end_matches(" |").rsplit(" | ").next().filter(|cell| cell.starts_with('`')) else {
            continue;
        };
        for name in tests.split('`').filter(|name| name.contains('_')) {
            named += 1;
            if !all.contains(&format!("fn {name}(")) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "named and not there: {missing:#?}");
    assert!(named > 80, "{named}");
}
