//! The nearest known word for one that is not known.

/// Returns the known word that `wrong` was most likely meant to be; `None` when none is near.
pub(crate) fn nearest<'w>(wrong: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let wrong = wrong.to_lowercase().replace('-', "_");
    // Long words cost time that an attacker's file could buy; no key is that long.
    if wrong.chars().count() > 64 {
        return None;
    }
    let most = (wrong.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|word| (distance(&wrong, &word.replace('-', "_")), word))
        .filter(|&(distance, word)| distance <= most && distance < word.chars().count())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}

/// Edits between two words: insertion, deletion, replacement, or two neighbours swapped.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, &left_char) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, &right_char) in right.iter().enumerate() {
            let mut least = (last[column] + usize::from(left_char != right_char))
                .min(last[column + 1] + 1)
                .min(current[column] + 1);
            if row > 0 && column > 0 && left_char == right[column - 1] && left[row - 1] == right_char {
                least = least.min(before_last[column - 1] + 1);
            }
            current.push(least);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_finger_finds_its_word_and_a_strange_word_finds_none() {
        let known = ["ttl", "max_stale", "negative_ttl", "poll_interval", "grant"];
        for (wrong, right) in [
            ("tll", Some("ttl")),
            ("max-stale", Some("max_stale")),
            ("MAX_STALE", Some("max_stale")),
            ("poll_intervall", Some("poll_interval")),
            ("grants", Some("grant")),
            ("zzz", None),
            ("", None),
            ("completely_else", None),
        ] {
            assert_eq!(nearest(wrong, known), right, "{wrong}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }
}
