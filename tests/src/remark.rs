//! What a scenario says beside passing: figures that decide nothing, and what this machine cannot show.

/// Prints a line on stderr.
pub fn remark(text: impl std::fmt::Display) {
    eprintln!("{text}");
}
