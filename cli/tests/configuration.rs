//! What holds of every `keyside.toml`, for the agent's loader and the wrapper's together: mistakes have a place in the
//! file, the same file means the same twice, and what the agent takes the wrapper takes too.
#![allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

use std::path::Path;

use proptest::prelude::*;

// The very function that the fuzzer calls, so that a break shows here first.
#[allow(unreachable_pub, reason = "public where the fuzz target uses it")]
#[path = "../../fuzz/src/configuration.rs"]
mod properties;

/// Every line of the examples and of the fuzzer's seeds.
fn lines() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut lines: Vec<String> = ["config/examples", "fuzz/seeds/configuration"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap())
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    // The folders' order is nobody's promise.
    lines.sort();
    assert!(lines.len() > 50);
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_lines_of_configurations_in_any_order_are_refused_in_place_or_mean_one_thing(
        lines in prop::collection::vec(prop::sample::select(lines()), 0..30),
        edit in prop::option::of((any::<prop::sample::Index>(), any::<char>())),
    ) {
        let mut text = lines.join("\n");
        if let Some((at, character)) = edit {
            let at = text.floor_char_boundary(at.index(text.len() + 1));
            text.insert(at, character);
        }
        properties::configuration(text.as_bytes());
    }

    #[test]
    fn any_one_line_beside_a_back_end_is_refused_in_place_or_means_one_thing(
        lines in prop::sample::subsequence(lines(), 1..4),
    ) {
        let back_end = "[backend.store]\ntype = \"zenml-sql\"\nurl = \"sqlite:////srv/zenml.db\"\n";
        properties::configuration(format!("{back_end}{}\n", lines.join("\n")).as_bytes());
    }
}
