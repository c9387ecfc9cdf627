//! Finds the word that was probably meant.

/// `; did you mean …?` with the most similar known word, or nothing where none is similar enough: one edit in a word of up
/// to two letters, two in up to six, three in a longer one.
pub(crate) fn suggest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    if given.len() > 24 {
        return String::new();
    }
    let lower = given.to_ascii_lowercase();
    let limit = match lower.len() {
        0..=2 => 1,
        3..=6 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|name| (distance(&lower, name), name))
        .filter(|(d, name)| *d <= limit && *d < name.len())
        .min_by_key(|(d, _)| *d)
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

/// Optimal string alignment distance: the least number of insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}
