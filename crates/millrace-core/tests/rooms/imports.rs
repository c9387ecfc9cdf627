//! Which file imports which: `use` lines and paths of a crate's source, with every name followed to the file that defines it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, ItemUse, Meta, UseTree, visit::Visit};

/// One line of a file that names something of another file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    /// Path of the importing file below src/.
    pub(crate) from: String,
    /// Line of the path, from 1.
    pub(crate) line: usize,
    /// The path as written, with groups of a `use` spelled out.
    pub(crate) path: String,
    /// Path of the file that defines what is imported, below src/.
    pub(crate) to: String,
}

/// A module that is a file.
#[derive(Default)]
struct Module {
    file: String,
    /// Names of items defined in it, modules inside it and child modules left out.
    items: BTreeSet<String>,
    /// Names brought in by `use`, with the absolute path of each.
    uses: BTreeMap<String, Vec<String>>,
    /// Absolute paths of `use path::*`.
    globs: Vec<Vec<String>>,
    /// Paths it names, as written, with their lines.
    paths: Vec<(usize, Vec<String>)>,
}

/// All modules by their absolute path; that of the crate's root is empty.
type Modules = BTreeMap<Vec<String>, Module>;

/// The imports between the files below `src`.
pub(crate) fn of(src: &Path) -> Vec<Import> {
    let mut modules = Modules::new();
    read(src, src, &mut modules);
    let mut imports = BTreeSet::new();
    for (own, module) in &modules {
        for (line, path) in &module.paths {
            let Some(absolute) = absolute(own, path, &modules) else { continue };
            let to = resolve(&absolute, &modules, 0);
            if to != module.file {
                imports.insert(Import { from: module.file.clone(), line: *line, path: path.join("::"), to });
            }
        }
    }
    // The root only declares modules.
    imports.into_iter().filter(|import| import.from != "lib.rs" && import.to != "lib.rs").collect()
}

fn read(folder: &Path, src: &Path, modules: &mut Modules) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, src, modules);
            continue;
        }
        let file = path.strip_prefix(src).unwrap().to_str().unwrap().to_owned();
        let Some(stem) = file.strip_suffix(".rs") else { continue };
        let mut own: Vec<String> = stem.split('/').map(str::to_owned).collect();
        if matches!(own.last().map(String::as_str), Some("mod" | "lib")) {
            own.pop();
        }
        let syntax =
            syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{file}: {e}"));
        let mut reader = Reader { module: Module { file, ..Module::default() } };
        reader.visit_file(&syntax);
        modules.insert(own, reader.module);
    }
    // Files of unit tests are modules under `#[cfg(test)]`, declared by their parent.
    let tests: Vec<Vec<String>> = modules
        .iter()
        .flat_map(|(own, m)| m.items.iter().filter_map(move |i| Some((own, i.strip_prefix("test mod ")?))))
        .map(|(own, child)| [own.as_slice(), &[child.to_owned()]].concat())
        .collect();
    modules.retain(|own, _| !tests.iter().any(|test| own.starts_with(test)));
}

struct Reader {
    module: Module,
}

impl Reader {
    fn add(&mut self, line: usize, path: Vec<String>) {
        self.module.paths.push((line, path));
    }

    fn walk(&mut self, tree: &UseTree, prefix: &[String], line: usize) {
        match tree {
            UseTree::Path(path) => {
                self.walk(
                    &path.tree,
                    &[prefix, &[path.ident.to_string()]].concat(),
                    path.ident.span().start().line,
                );
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.walk(tree, prefix, line)),
            UseTree::Glob(_) => {
                self.module.globs.push(prefix.to_vec());
                self.add(line, prefix.to_vec());
            }
            UseTree::Name(name) => {
                let own = name.ident.to_string();
                let path = if own == "self" { prefix.to_vec() } else { [prefix, &[own]].concat() };
                let last = path.last().cloned().unwrap_or_default();
                self.module.uses.insert(last, path.clone());
                self.add(name.ident.span().start().line, path);
            }
            UseTree::Rename(rename) => {
                let own = rename.ident.to_string();
                let path = if own == "self" { prefix.to_vec() } else { [prefix, &[own]].concat() };
                self.module.uses.insert(rename.rename.to_string(), path.clone());
                self.add(rename.ident.span().start().line, path);
            }
        }
    }

    /// Paths inside a macro's tokens, which syn does not parse.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) => {
                    let mut path = vec![first.to_string()];
                    while let (
                        Some(TokenTree::Punct(a)),
                        Some(TokenTree::Punct(b)),
                        Some(TokenTree::Ident(next)),
                    ) = (tokens.get(at + 1), tokens.get(at + 2), tokens.get(at + 3))
                    {
                        if a.as_char() != ':' || b.as_char() != ':' {
                            break;
                        }
                        path.push(next.to_string());
                        at += 3;
                    }
                    if path.len() > 1 {
                        self.add(first.span().start().line, path);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name): (&[Attribute], Option<String>) = match item {
            Item::Fn(i) => (&i.attrs, Some(i.sig.ident.to_string())),
            Item::Struct(i) => (&i.attrs, Some(i.ident.to_string())),
            Item::Enum(i) => (&i.attrs, Some(i.ident.to_string())),
            Item::Union(i) => (&i.attrs, Some(i.ident.to_string())),
            Item::Trait(i) => (&i.attrs, Some(i.ident.to_string())),
            Item::Type(i) => (&i.attrs, Some(i.ident.to_string())),
            Item::Const(i) => (&i.attrs, Some(i.ident.to_string())),
            Item::Static(i) => (&i.attrs, Some(i.ident.to_string())),
            Item::Impl(i) => (&i.attrs, None),
            Item::Use(i) => (&i.attrs, None),
            Item::Macro(i) => (&i.attrs, i.ident.as_ref().map(ToString::to_string)),
            Item::Mod(i) => {
                if is_test(&i.attrs) && i.content.is_none() {
                    self.module.items.insert(format!("test mod {}", i.ident));
                }
                (&i.attrs, i.content.is_some().then(|| i.ident.to_string()))
            }
            _ => (&[], None),
        };
        if is_test(attributes) {
            return;
        }
        self.module.items.extend(name);
        syn::visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            syn::visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.walk(&item.tree, &[], item.use_token.span.start().line);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let line = path.segments[0].ident.span().start().line;
            self.add(line, path.segments.iter().map(|s| s.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    /// `pub(in crate::rule)` says who may see an item, and imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }
}

/// `#[cfg(test)]` and `#[cfg(any(test, …))]`.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("cfg") && {
            let text = list.tokens.to_string();
            text == "test" || text.starts_with("any (test")
        }
    })
}

/// A path from the crate's root on; None for one of another crate, or of a name inside the file.
fn absolute(own: &[String], path: &[String], modules: &Modules) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([own, rest].concat()),
        "super" => {
            let mut base = own.to_vec();
            let mut rest = path;
            while rest.first().is_some_and(|segment| segment == "super") {
                base.pop();
                rest = &rest[1..];
            }
            Some([base.as_slice(), rest].concat())
        }
        name => {
            let child = [own, &[name.to_owned()]].concat();
            if modules.contains_key(&child) {
                return Some([own, path].concat());
            }
            // A module brought in by `use`: what is named through it may lie in a file of its own.
            let used = modules.get(own)?.uses.get(name)?;
            if used.first().is_some_and(|segment| segment == name) {
                return None;
            }
            let base = absolute(own, used, modules)?;
            modules.contains_key(&base).then(|| [base.as_slice(), rest].concat())
        }
    }
}

/// The file that defines what an absolute path names, with re-exports followed.
fn resolve(path: &[String], modules: &Modules, depth: usize) -> String {
    let mut own: Vec<String> = Vec::new();
    let mut rest = path;
    while let Some((next, after)) = rest.split_first() {
        let child = [own.as_slice(), std::slice::from_ref(next)].concat();
        if !modules.contains_key(&child) {
            break;
        }
        (own, rest) = (child, after);
    }
    let module = &modules[&own];
    let Some((name, after)) = rest.split_first() else { return module.file.clone() };
    if module.items.contains(name) || depth > 8 {
        return module.file.clone();
    }
    let target = module.uses.get(name).and_then(|used| absolute(&own, used, modules)).or_else(|| {
        let globs = module.globs.iter().filter_map(|glob| absolute(&own, glob, modules));
        let mut with = globs.map(|glob| [glob.as_slice(), std::slice::from_ref(name)].concat());
        with.find(|target| modules.get(&target[..target.len() - 1]).is_some_and(|m| m.items.contains(name)))
    });
    match target {
        Some(target) => resolve(&[target.as_slice(), after].concat(), modules, depth + 1),
        None => module.file.clone(),
    }
}
