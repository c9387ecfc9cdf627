//! How mistakes are shown. The expected messages live in `errors.snap`: `>>>` a rule text, `---`, its message (for four
//! queues). `MILLRACE_BLESS=1 cargo test` writes them anew; read the difference before you commit it.

use super::*;

const SNAP: &str = include_str!("errors.snap");

#[test]
fn messages() {
    let mut fresh = String::new();
    let mut cases = 0;
    for case in SNAP.split(">>>\n").skip(1) {
        let text = case.split("---\n").next().unwrap();
        let message = errors(text.trim_end_matches('\n'), 4);
        fresh += &format!(">>>\n{text}---\n{message}\n\n");
        cases += 1;
    }
    if std::env::var_os("MILLRACE_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/rule/tests/errors.snap");
        std::fs::write(path, fresh).unwrap();
        return;
    }
    assert!(cases > 12);
    assert_eq!(
        fresh, SNAP,
        "if this is meant: MILLRACE_BLESS=1 cargo test -p millrace-core --lib rule::tests::errors"
    );
}

#[test]
fn carets_stay_under_their_text() {
    let long = format!(
        "{} => drop",
        vec!["len == 1"; 100].join(" or ").replacen("len == 1", "u33[0] == 1", 99).replacen("u33", "u8", 97)
    );
    let message = errors(&long, 4);
    let lines: Vec<&str> = message.lines().collect();
    for three in lines[1..].chunks(3) {
        let at = three[2].find('^').unwrap();
        let shown: String = three[1].chars().skip(three[2][..at].chars().count()).take(3).collect();
        assert_eq!(shown, "u33", "{message}");
        assert!(three[1].chars().count() < 120);
    }
}
