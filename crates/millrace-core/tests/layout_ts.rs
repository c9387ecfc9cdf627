//! `src/generated/layout.ts` is printed from the Rust layout: this test fails when they differ, and rewrites the file
//! when run with MILLRACE_BLESS=1 (`npm run generate`).

use std::{fmt::Write as _, fs, path::Path};

use millrace_core::lane::LAYOUT;

#[test]
fn the_typescript_layout_is_the_rust_layout() {
    let mut text = String::from(
        "// Printed from crates/millrace-core/src/lane/layout.rs by `npm run generate`; the addon asserts it at load.\n\
         export const LAYOUT = {\n",
    );
    for (name, value) in LAYOUT {
        writeln!(text, "  {name}: {value},").unwrap();
    }
    text.push_str("} as const\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/generated/layout.ts");
    if std::env::var_os("MILLRACE_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "run npm run generate");
}
