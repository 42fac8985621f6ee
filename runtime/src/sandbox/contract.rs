//! Compares the types of a component's imports and exports with our WIT, and says where they differ, in the WIT's own names.
//!
//! wasmtime compares them too, but exports only in an instance, and its sentences name no interface, function or record.

use std::sync::LazyLock;

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::{ComponentFunc, ComponentInstance, ComponentItem, Type as Found};
use wit_parser::{Function, Handle, Interface, InterfaceId, Resolve, Type, TypeDefKind, WorldItem};

/// Our packages that need no other.
const PACKAGES: [(&str, &str); 3] = [
    ("jobs.wit", include_str!("../../../wit/jobs.wit")),
    ("objects.wit", include_str!("../../../wit/deps/objects/objects.wit")),
    ("sql.wit", include_str!("../../../wit/deps/sql/sql.wit")),
];

static CONTRACT: LazyLock<Resolve> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    for (name, text) in PACKAGES {
        resolve.push_str(name, text).expect("the WIT is part of this program");
    }
    resolve
});

/// Compares what a component exports with a world of `rowmill:jobs`, and what it imports of our packages with them. Functions that a component exports beside those of the world do not matter.
///
/// # Errors
/// The first difference, as the second half of a sentence.
pub(super) fn compare(engine: &Engine, component: &Component, world: &str) -> Result<(), String> {
    let resolve = &*CONTRACT;
    let exports = resolve.worlds.iter().find(|(_, other)| other.name == world).map(|(_, world)| &world.exports);
    for item in exports.expect("the world is in the contract").values() {
        let WorldItem::Interface { id, .. } = item else { continue };
        let name = name_of(resolve, *id);
        match component.component_type().get_export(engine, &name).map(|export| export.ty) {
            Some(ComponentItem::ComponentInstance(instance)) => compare_exports(engine, resolve, &resolve.interfaces[*id], &name, &instance)?,
            _ => return Err(format!("it does not export {name}")),
        }
    }
    for (name, import) in component.component_type().imports(engine) {
        let ours = resolve.interfaces.iter().find(|(id, interface)| interface.name.is_some() && name_of(resolve, *id) == name);
        if let (Some((_, interface)), ComponentItem::ComponentInstance(instance)) = (ours, import.ty) {
            compare_imports(engine, resolve, interface, name, &instance)?;
        }
    }
    Ok(())
}

fn name_of(resolve: &Resolve, id: InterfaceId) -> String {
    resolve.id_of(id).unwrap_or_default()
}

/// Each function that the interface has is exported, with its types.
fn compare_exports(engine: &Engine, resolve: &Resolve, ours: &Interface, name: &str, found: &ComponentInstance) -> Result<(), String> {
    for function in ours.functions.values() {
        match found.get_export(engine, &function.name).map(|export| export.ty) {
            Some(ComponentItem::ComponentFunc(other)) => compare_function(resolve, function, name, &other)?,
            _ => return Err(format!("{name} that it exports has no function {}", function.name)),
        }
    }
    Ok(())
}

/// Each function that is imported is one of the interface's, with its types.
fn compare_imports(engine: &Engine, resolve: &Resolve, ours: &Interface, name: &str, found: &ComponentInstance) -> Result<(), String> {
    for (function, import) in found.exports(engine) {
        let ComponentItem::ComponentFunc(other) = import.ty else { continue };
        match ours.functions.get(function) {
            Some(ours) => compare_function(resolve, ours, name, &other)?,
            None => return Err(format!("it imports {function} of {name}, which has no such function")),
        }
    }
    Ok(())
}

fn compare_function(resolve: &Resolve, ours: &Function, interface: &str, found: &ComponentFunc) -> Result<(), String> {
    let place = |part: &str, difference: String| format!("{interface}, function {}, {part}: {difference}", ours.name);
    if found.async_() {
        return Err(place("type", "it is async, and should not be".to_owned()));
    }
    let params: Vec<(&str, Found)> = found.params().collect();
    if params.len() != ours.params.len() {
        return Err(place("parameters", format!("there should be {}, and there are {}", ours.params.len(), params.len())));
    }
    for (ours, (name, found)) in ours.params.iter().zip(params) {
        let part = format!("parameter {}", ours.name);
        if ours.name != name {
            return Err(place(&part, format!("it is called {name}")));
        }
        differ(resolve, &ours.ty, &found).map_err(|difference| place(&part, difference))?;
    }
    let results: Vec<Found> = found.results().collect();
    differ_optional(resolve, ours.result.as_ref(), results.first()).map_err(|difference| place("result", difference))
}

fn differ_optional(resolve: &Resolve, ours: Option<&Type>, found: Option<&Found>) -> Result<(), String> {
    match (ours, found) {
        (None, None) => Ok(()),
        (Some(ours), Some(found)) => differ(resolve, ours, found),
        (Some(ours), None) => Err(format!("{} is missing", describe(resolve, ours))),
        (None, Some(found)) => Err(format!("there is {}, and should be nothing", describe_found(found))),
    }
}

/// Returns an error with the first difference between two types, from the outside to the inside.
fn differ(resolve: &Resolve, ours: &Type, found: &Found) -> Result<(), String> {
    let Type::Id(id) = ours else {
        return if describe(resolve, ours) == describe_found(found) { Ok(()) } else { Err(other(resolve, ours, found)) };
    };
    let definition = &resolve.types[*id];
    let within = |difference: String| match &definition.name {
        Some(name) => format!("{} {name}: {difference}", definition.kind.as_str()),
        None => difference,
    };
    match (&definition.kind, found) {
        (TypeDefKind::Type(ours), found) => differ(resolve, ours, found),
        (TypeDefKind::Record(ours), Found::Record(found)) => {
            let fields: Vec<_> = found.fields().collect();
            let names = fields.iter().map(|field| field.name).collect::<Vec<_>>();
            same_names("field", &ours.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), &names).map_err(within)?;
            ours.fields.iter().zip(&fields).try_for_each(|(ours, found)| {
                differ(resolve, &ours.ty, &found.ty).map_err(|difference| within(format!("field {}: {difference}", ours.name)))
            })
        }
        (TypeDefKind::Variant(ours), Found::Variant(found)) => {
            let cases: Vec<_> = found.cases().collect();
            let names = cases.iter().map(|case| case.name).collect::<Vec<_>>();
            same_names("case", &ours.cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>(), &names).map_err(within)?;
            ours.cases.iter().zip(&cases).try_for_each(|(ours, found)| {
                differ_optional(resolve, ours.ty.as_ref(), found.ty.as_ref())
                    .map_err(|difference| within(format!("case {}: {difference}", ours.name)))
            })
        }
        (TypeDefKind::Enum(ours), Found::Enum(found)) => {
            let names = found.names().collect::<Vec<_>>();
            same_names("case", &ours.cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>(), &names).map_err(within)
        }
        (TypeDefKind::Option(ours), Found::Option(found)) => differ(resolve, ours, &found.ty()).map_err(within),
        (TypeDefKind::List(ours), Found::List(found)) => differ(resolve, ours, &found.ty()).map_err(within),
        (TypeDefKind::Result(ours), Found::Result(found)) => {
            differ_optional(resolve, ours.ok.as_ref(), found.ok().as_ref()).map_err(within)?;
            differ_optional(resolve, ours.err.as_ref(), found.err().as_ref()).map_err(|difference| within(format!("error: {difference}")))
        }
        // Which resource it is, wasmtime compares.
        (TypeDefKind::Resource | TypeDefKind::Handle(Handle::Own(_)), Found::Own(_)) | (TypeDefKind::Handle(Handle::Borrow(_)), Found::Borrow(_)) => {
            Ok(())
        }
        _ => Err(other(resolve, ours, found)),
    }
}

fn same_names(part: &str, ours: &[&str], found: &[&str]) -> Result<(), String> {
    if let Some(missing) = ours.iter().find(|name| !found.contains(name)) {
        return Err(format!("it lacks the {part} {missing}"));
    }
    if let Some(extra) = found.iter().find(|name| !ours.contains(name)) {
        return Err(format!("it has a {part} {extra}, which is not known"));
    }
    match ours.iter().zip(found).find(|(ours, found)| ours != found) {
        Some((ours, found)) => Err(format!("the {part} {found} stands in the place of {ours}")),
        None => Ok(()),
    }
}

fn other(resolve: &Resolve, ours: &Type, found: &Found) -> String {
    format!("it should be {}, and is {}", describe(resolve, ours), describe_found(found))
}

/// A type as WIT names it; of what has parts, the kind.
fn describe(resolve: &Resolve, ours: &Type) -> String {
    let name = match ours {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
        Type::Id(id) => match (&resolve.types[*id].kind, &resolve.types[*id].name) {
            (TypeDefKind::Type(inner), _) => return describe(resolve, inner),
            (kind, Some(name)) => return format!("{} {name}", kind.as_str()),
            (kind, None) => kind.as_str(),
        },
    };
    name.to_owned()
}

fn describe_found(found: &Found) -> String {
    let name = match found {
        Found::Bool => "bool",
        Found::U8 => "u8",
        Found::U16 => "u16",
        Found::U32 => "u32",
        Found::U64 => "u64",
        Found::S8 => "s8",
        Found::S16 => "s16",
        Found::S32 => "s32",
        Found::S64 => "s64",
        Found::Float32 => "f32",
        Found::Float64 => "f64",
        Found::Char => "char",
        Found::String => "string",
        Found::ErrorContext => "error-context",
        Found::List(_) => "list",
        Found::Map(_) => "map",
        Found::Record(_) => "record",
        Found::Tuple(_) => "tuple",
        Found::Variant(_) => "variant",
        Found::Enum(_) => "enum",
        Found::Option(_) => "option",
        Found::Result(_) => "result",
        Found::Flags(_) => "flags",
        Found::Own(_) => "own",
        Found::Borrow(_) => "borrow",
        Found::Future(_) => "future",
        Found::Stream(_) => "stream",
        Found::FixedLengthList(_) => "fixed-length list",
    };
    name.to_owned()
}
