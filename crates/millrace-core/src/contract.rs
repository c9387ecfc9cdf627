//! The JSON that crosses the addon's boundary, as TypeScript: `src/generated/contract.ts` is printed from the serde types of
//! this crate. The test fails when they differ, and rewrites the file when run with MILLRACE_BLESS=1 (`npm run generate`).
//!
//! A type belongs to the contract when it derives `ts_rs::TS` (in tests only) and is listed in [`contract`]. The types it
//! refers to must be listed as well, or the TypeScript compiler refuses the file.

use std::{fmt::Write as _, fs, path::Path};

use ts_rs::{Config, TS};

use crate::{config, engine, engine::preflight, lane, rx, scatter};

/// The whole file: what goes in first, then what comes out.
fn contract() -> String {
    let mut text = String::from(
        "// Printed from the serde types of crates/millrace-core by `npm run generate`; see its src/contract.rs.\n",
    );
    declare::<config::EngineConfig>(&mut text);
    declare::<config::BackendChoice>(&mut text);
    declare::<config::Listen>(&mut text);
    declare::<config::Multicast>(&mut text);
    declare::<config::BusyPoll>(&mut text);
    declare::<config::XdpMode>(&mut text);
    declare::<config::ZeroCopy>(&mut text);
    declare::<config::Tpacket>(&mut text);
    declare::<config::FanoutMode>(&mut text);
    declare::<config::FanoutFlag>(&mut text);
    declare::<config::Timestamps>(&mut text);

    declare::<engine::EngineDescription>(&mut text);
    declare::<rx::BackendInfo>(&mut text);
    declare::<rx::ladder::RefusedBackend>(&mut text);
    declare::<lane::QueueLayout>(&mut text);
    declare::<lane::LaneLayout>(&mut text);
    declare::<engine::CompiledRules>(&mut text);

    declare::<engine::EngineStats>(&mut text);
    declare::<engine::ThreadStats>(&mut text);
    declare::<scatter::Dropped>(&mut text);
    declare::<engine::QueueStats>(&mut text);
    declare::<scatter::RuleStats>(&mut text);
    declare::<engine::InterfaceStats>(&mut text);

    declare::<preflight::PreflightReport>(&mut text);
    declare::<preflight::Finding>(&mut text);
    declare::<preflight::CheckStatus>(&mut text);
    text
}

/// Appends the declaration of a type: an object of read-only fields for a struct, a union for an enum.
fn declare<T: TS>(text: &mut String) {
    // Every u64 and usize of the contract stays below 2^53, so that JSON.parse reads it exactly.
    let cfg = Config::new().with_large_int("number");
    let decl = T::decl(&cfg).replace('"', "'");
    text.push('\n');
    if let Some(docs) = T::docs() {
        comment(text, "", &docs);
    }
    let name = T::ident(&cfg);
    let Some(fields) = decl.strip_prefix(&format!("type {name} = {{")) else {
        writeln!(text, "export {}", decl.trim_end_matches(';')).unwrap();
        return;
    };
    writeln!(text, "export type {name} = {{").unwrap();
    let mut docs = String::new();
    for line in fields.lines().map(str::trim) {
        if line.starts_with("/*") || line.starts_with('*') {
            docs.push_str(line);
            docs.push('\n');
        } else if let Some((field, kind)) = line.split_once(": ") {
            comment(text, "  ", &std::mem::take(&mut docs));
            let kind = kind.trim_end_matches("};").trim_end().trim_end_matches(',');
            writeln!(text, "  readonly {field}: {}", read_only(kind)).unwrap();
        }
    }
    text.push_str("}\n");
}

/// Appends a block comment; one of a single line is put on one line. Links of rustdoc become plain code.
fn comment(text: &mut String, indent: &str, docs: &str) {
    let lines: Vec<&str> = docs
        .lines()
        .map(|line| {
            line.trim().trim_start_matches("/**").trim_start_matches("*/").trim_start_matches('*').trim()
        })
        .filter(|line| !line.is_empty())
        .collect();
    let plain = |line: &str| line.replace("[`", "`").replace("`]", "`");
    match lines.as_slice() {
        [] => {}
        [line] => writeln!(text, "{indent}/** {} */", plain(line)).unwrap(),
        lines => {
            writeln!(text, "{indent}/**").unwrap();
            lines.iter().for_each(|line| writeln!(text, "{indent} * {}", plain(line)).unwrap());
            writeln!(text, "{indent} */").unwrap();
        }
    }
}

/// The read-only form of a type expression: arrays, tuples and records cannot be written to.
fn read_only(kind: &str) -> String {
    if let Some(of) = kind.strip_prefix("Array<").and_then(|k| k.strip_suffix('>')) {
        let of = read_only(of);
        return if of.contains(' ') { format!("readonly ({of})[]") } else { format!("readonly {of}[]") };
    }
    if kind.starts_with('[') {
        return format!("readonly {kind}");
    }
    if kind.starts_with("Record<") {
        return format!("Readonly<{kind}>");
    }
    kind.to_owned()
}

#[test]
fn the_typescript_contract_is_the_rust_contract() {
    let text = contract();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/generated/contract.ts");
    if std::env::var_os("MILLRACE_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "run npm run generate");
}
