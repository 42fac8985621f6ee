//! Core modules that fit a world, made from its WIT: whatever the contract comes to have is in them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use wit_component::StringEncoding;
use wit_parser::abi::{AbiVariant, WasmSignature, WasmType};
use wit_parser::{Function, Resolve, TypeDefKind, TypeId, WorldId, WorldItem};

/// Packages of WASI 0.2 that the contract does not name and every guest may import; their own text, without comments.
const WASI: [(&str, &str); 3] =
    [("random.wit", include_str!("wit/random.wit")), ("sockets.wit", include_str!("wit/sockets.wit")), ("cli.wit", include_str!("wit/cli.wit"))];

/// Where functions return what they return. Memory is zero there, and zeros are a success.
const RETURNED: u32 = 16;
/// Where the memory begins that is given to the host, for what it hands over.
const HEAP: u32 = 1 << 20;
const PAGES: u32 = 64;

/// A world, with all that it needs.
pub struct World {
    pub resolve: Resolve,
    id: WorldId,
}

/// A function that guests of a world import.
pub struct Import {
    module: String,
    pub name: String,
    pub signature: WasmSignature,
    pub what: Imported,
}

pub enum Imported {
    Function(Box<Function>),
    /// Drops a handle of this resource.
    Drop(TypeId),
}

impl World {
    /// A world with these items, as in `include rowmill:jobs/batch-processor@0.1.0;`.
    pub fn new(items: &str) -> World {
        let mut resolve = Resolve::default();
        resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")).expect("the contract is good");
        for (name, text) in WASI {
            resolve.push_source(name, text).expect("WASI is good");
        }
        let package = resolve.push_source("fuzz.wit", &format!("package test:fuzz; world fuzz {{ {items} }}")).expect("the items are good");
        let id = resolve.select_world(&[package], Some("fuzz")).expect("it is there");
        World { resolve, id }
    }

    /// All functions that its guests can call, in the order of the WIT.
    pub fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for (key, item) in &self.resolve.worlds[self.id].imports {
            let WorldItem::Interface { id, .. } = item else { continue };
            let module = self.resolve.name_world_key(key);
            let interface = &self.resolve.interfaces[*id];
            for (name, function) in &interface.functions {
                let signature = self.resolve.wasm_signature(AbiVariant::GuestImport, function);
                imports.push(Import { module: module.clone(), name: name.clone(), signature, what: Imported::Function(Box::new(function.clone())) });
            }
            let resources = interface.types.iter().filter(|(_, id)| matches!(self.resolve.types[**id].kind, TypeDefKind::Resource));
            for (name, id) in resources {
                let signature = WasmSignature { params: vec![WasmType::I32], results: Vec::new(), indirect_params: false, retptr: false };
                imports.push(Import { module: module.clone(), name: format!("[resource-drop]{name}"), signature, what: Imported::Drop(*id) });
            }
        }
        imports
    }

    /// The function of this name that its guests export.
    pub fn export(&self, name: &str) -> Option<&Function> {
        self.exports().map(|(_, function)| function).find(|function| function.name == name)
    }

    fn exports(&self) -> impl Iterator<Item = (String, &Function)> {
        self.resolve.worlds[self.id].exports.iter().flat_map(|(key, item)| {
            let functions = match item {
                WorldItem::Interface { id, .. } => Some(&self.resolve.interfaces[*id].functions),
                _ => None,
            };
            let module = self.resolve.name_world_key(key);
            functions.into_iter().flatten().map(move |(name, function)| (format!("{module}#{name}"), function))
        })
    }

    /// A core module that exports all that the world does. Its functions do nothing and succeed, but for those whose bodies are given by name: instructions in folded form that end with the result.
    pub fn module(&self, imports: &[Import], fields: &str, bodies: &BTreeMap<&str, String>) -> Vec<u8> {
        let mut text = "(module\n".to_owned();
        for (at, Import { module, name, signature, .. }) in imports.iter().enumerate() {
            let _ = writeln!(text, "(import \"{module}\" \"{name}\" (func $import{at} {}))", types_of(signature));
        }
        let _ = writeln!(
            text,
            "(memory (export \"memory\") {PAGES}) (global $next (mut i32) (i32.const {HEAP}))\n{fields}\n\
             (func (export \"cabi_realloc\") (param i32 i32) (param $align i32) (param $size i32) (result i32) (local $at i32)\n\
             (local.set $at (i32.and (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1))) (i32.sub (i32.const 0) (local.get $align))))\n\
             (global.set $next (i32.add (local.get $at) (local.get $size)))\n\
             (if (i32.gt_u (global.get $next) (i32.const {})) (then (unreachable))) (local.get $at))",
            PAGES << 16
        );
        for (name, function) in self.exports() {
            let signature = self.resolve.wasm_signature(AbiVariant::GuestExport, function);
            let idle = match signature.results.first() {
                None => String::new(),
                Some(WasmType::I32 | WasmType::Pointer) => format!("(i32.const {RETURNED})"),
                Some(number) => format!("({}.const 0)", name_of(*number)),
            };
            let body = bodies.get(function.name.as_str()).unwrap_or(&idle);
            let _ = writeln!(text, "(func (export \"{name}\") {} (local $i i32) (local $j i32) {body})", types_of(&signature));
        }
        text.push(')');
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// Lets a core module carry the world.
    pub fn embed(&self, module: &mut Vec<u8>) {
        wit_component::embed_component_metadata(module, &self.resolve, self.id, StringEncoding::UTF8).expect("the world can be written");
    }
}

/// As text.
pub const fn name_of(of: WasmType) -> &'static str {
    match of {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    }
}

/// The parameters, by their numbers as `$p0` and so on, and the result.
fn types_of(signature: &WasmSignature) -> String {
    let mut text = String::new();
    for (at, param) in signature.params.iter().enumerate() {
        let _ = write!(text, "(param $p{at} {}) ", name_of(*param));
    }
    for result in &signature.results {
        let _ = write!(text, "(result {})", name_of(*result));
    }
    text
}
