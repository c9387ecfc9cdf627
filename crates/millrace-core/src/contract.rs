//! The JSON that crosses the addon's boundary, as TypeScript: `src/generated/contract.ts` is printed from the serde types of
//! this crate. The test fails when they differ, and rewrites the file when run with MILLRACE_BLESS=1 (`npm run generate`).
//!
//! A type belongs to the contract when it derives `ts_rs::TS` (in tests only) and is listed in [`contract`]. The types it
//! refers to must be listed as well, or the TypeScript compiler refuses the file.

use std::{fmt::Write as _, fs, path::Path};

use ts_rs::{Config, TS};

use crate::{
    capture, config,
    engine::{self, preflight},
    lane,
    rule::{self, command},
    rx, scatter,
};

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
    declare::<command::CompiledRules>(&mut text);

    declare::<engine::EngineStats>(&mut text);
    declare::<engine::ThreadStats>(&mut text);
    declare::<scatter::Dropped>(&mut text);
    declare::<engine::QueueStats>(&mut text);
    declare::<scatter::RuleStats>(&mut text);
    declare::<engine::InterfaceStats>(&mut text);

    declare::<preflight::PreflightReport>(&mut text);
    declare::<preflight::Finding>(&mut text);
    declare::<preflight::CheckStatus>(&mut text);

    declare::<command::RulesReport>(&mut text);
    declare::<command::RuleText>(&mut text);
    declare::<command::Translations>(&mut text);
    declare::<command::Translation>(&mut text);
    declare::<command::Explanation>(&mut text);
    declare::<command::ExplainedVerdict>(&mut text);
    declare::<rule::RuleTrace>(&mut text);
    declare::<rule::Outcome>(&mut text);
    declare::<capture::CaptureSummary>(&mut text);
    declare::<capture::RuleCount>(&mut text);
    declare::<capture::KeyCount>(&mut text);
    text
}

/// Longest line that the formatter of the TypeScript side leaves alone.
const LINE: usize = 110;

/// Appends the declaration of a type: an object of read-only fields for a struct, a union for an enum.
fn declare<T: TS>(text: &mut String) {
    // Every u64 and usize of the contract stays below 2^53, so that JSON.parse reads it exactly.
    let cfg = Config::new().with_large_int("number");
    let (name, decl) = (T::ident(&cfg), T::decl(&cfg).replace('"', "'"));
    let Some(body) = decl.strip_prefix(&format!("type {name} = ")).and_then(|d| d.strip_suffix(';')) else {
        panic!("{name}: not a declaration: {decl}");
    };
    text.push('\n');
    if let Some(docs) = T::docs() {
        comment(text, "", &docs);
    }
    let plain = without_comments(body);
    let members = split(&plain, '|');
    if members.len() == 1 && body.starts_with('{') {
        writeln!(text, "export type {name} = {{").unwrap();
        for (docs, field) in fields(body) {
            comment(text, "  ", &docs);
            writeln!(text, "  {field}").unwrap();
        }
        text.push_str("}\n");
        return;
    }
    let members: Vec<String> = members.into_iter().map(member).collect();
    let line = format!("export type {name} = {}", members.join(" | "));
    if line.chars().count() <= LINE {
        writeln!(text, "{line}").unwrap();
    } else {
        writeln!(text, "export type {name} =").unwrap();
        members.iter().for_each(|member| writeln!(text, "  | {member}").unwrap());
    }
}

/// One member of a union: a literal, or an object without the comments of its fields.
fn member(text: &str) -> String {
    if !text.starts_with('{') {
        return text.to_owned();
    }
    let fields: Vec<String> = fields(text).into_iter().map(|(_, field)| field).collect();
    format!("{{ {} }}", fields.join("; "))
}

/// The fields of an object type, each with its comment.
fn fields(object: &str) -> Vec<(String, String)> {
    let body = object.trim().trim_start_matches('{').trim_end_matches('}');
    let (mut docs, mut fields) = (String::new(), Vec::new());
    for line in body.lines().map(str::trim) {
        if is_comment(line) {
            docs.push_str(line);
            docs.push('\n');
            continue;
        }
        for field in split(line, ',') {
            let (name, kind) = field.split_once(": ").unwrap();
            fields.push((std::mem::take(&mut docs), format!("readonly {name}: {}", read_only(kind))));
        }
    }
    fields
}

fn is_comment(line: &str) -> bool {
    line.starts_with("/*") || line.starts_with('*')
}

fn without_comments(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !is_comment(line)).collect::<Vec<_>>().join(" ")
}

/// The non-empty parts between separators that are not inside brackets.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' | '(' | '<' => depth += 1,
            '}' | ']' | ')' | '>' => depth -= 1,
            c if c == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
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
    let members = split(kind, '|');
    if members.len() > 1 {
        return members.into_iter().map(read_only).collect::<Vec<_>>().join(" | ");
    }
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
