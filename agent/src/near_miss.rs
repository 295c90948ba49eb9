//! The closest name to one that is not there.

/// Returns the candidate that a person most likely meant: equal but for case or `-` and `_`, else within a third of the
/// length in single edits; `None` when nothing is close. Among equals the one that is closer letter for letter.
pub(crate) fn nearest<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(wanted);
    let limit = (folded.len() / 3).clamp(1, 3);
    candidates
        .filter(|candidate| *candidate != wanted && candidate.len() <= 255)
        .filter_map(|candidate| {
            let other = fold(candidate);
            let distance = if other == folded { 0 } else { edits(&folded, &other, limit)? };
            let letters = wanted.chars().zip(candidate.chars()).filter(|(left, right)| left != right).count();
            Some((distance, letters, candidate))
        })
        .min()
        .map(|(.., candidate)| candidate)
}

fn fold(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).map(|letter| if letter == '-' { '_' } else { letter }).collect()
}

/// Counts insertions, deletions, replacements and swaps of neighbours; `None` above `limit`.
fn edits(from: &[char], to: &[char], limit: usize) -> Option<usize> {
    if from.len().abs_diff(to.len()) > limit {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let mut cost =
                (last[column] + usize::from(letter != other)).min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *letter == to[column - 1] && from[row - 1] == *other {
                cost = cost.min(before[column - 1] + 1);
            }
            current.push(cost);
        }
        before = std::mem::replace(&mut last, current);
    }
    last.last().copied().filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_meant_is_found() {
        let names = ["mlflow_secret", "mlflow", "aws", "db"];
        for (wanted, expected) in [
            ("mlflow_secert", Some("mlflow_secret")),
            ("MLFLOW-SECRET", Some("mlflow_secret")),
            ("mlflwo", Some("mlflow")),
            ("bd", Some("db")),
            ("completely_else", None),
            ("AWSS", Some("aws")),
            ("", None),
        ] {
            assert_eq!(nearest(wanted, names.into_iter()), expected, "{wanted}");
        }
    }
}
