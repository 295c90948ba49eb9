//! The seeds, through the same functions that the fuzzer calls.

use std::path::Path;

#[track_caller]
fn every_seed(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!seeds.is_empty());
    for seed in seeds {
        property(&std::fs::read(seed).unwrap());
    }
}

#[test]
fn every_reference_seed_holds() {
    every_seed("reference", keyside_fuzz::properties::reference);
}

#[test]
fn every_configuration_seed_holds() {
    every_seed("configuration", keyside_fuzz::configuration::configuration);
}

#[test]
fn every_example_holds_as_a_configuration() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    for example in std::fs::read_dir(examples).unwrap() {
        keyside_fuzz::configuration::configuration(&std::fs::read(example.unwrap().path()).unwrap());
    }
}

#[test]
fn every_template_seed_holds() {
    every_seed("template", keyside_fuzz::properties::template);
}
