//! Calls of host functions, as a guest's memory holds them: arguments of the right types, mostly, with the handles that earlier calls will have brought, mostly.

use arbitrary::{Result, Unstructured};
use wit_parser::{Function, Handle, Int, Resolve, SizeAlign, Type, TypeDefKind, TypeId};

use super::guest::{Import, Imported};

/// Where the guest finds its calls, and whatever they point to.
pub const IMAGE: u32 = 1 << 16;
/// How many there are, and where the outcome of the row is; then the calls.
const HEADER_BYTES: usize = 16;
/// The number of the function, and its arguments, eight bytes each.
pub const CALL_BYTES: usize = 8 + 8 * ARGUMENTS_MAX;
const ARGUMENTS_MAX: usize = 17;
const CALLS_MAX: usize = 24;
/// For what a function returns through memory.
const RETURNED_BYTES: usize = 256;
const TEXT_BYTES_MAX: usize = 300;
const ITEMS_MAX: usize = 5;
/// Once in so many places stands what should not.
const ODD: u32 = 40;

/// Writes the memory of a guest that calls these functions.
pub struct Calls<'a, 'u> {
    resolve: &'a Resolve,
    sizes: &'a SizeAlign,
    words: &'a Words,
    /// The parameter that is written.
    parameter: String,
    u: &'a mut Unstructured<'u>,
    image: Vec<u8>,
    /// Handles that the guest will have, if its calls succeed, and those that it will have given away.
    handles: Vec<(TypeId, u32)>,
    free: Vec<u32>,
    next_handle: u32,
}

/// Texts that lead somewhere, by the names of the parameters that they are for; those for any have none.
pub type Words = Vec<(&'static [&'static str], Vec<String>)>;

/// How a type is passed.
enum Shape {
    Scalar { bytes: usize },
    Text,
    List(Type),
    Fields(Vec<Type>),
    Cases { tag: Int, cases: Vec<Option<Type>> },
    Own(TypeId),
    Borrow(TypeId),
}

impl<'a, 'u> Calls<'a, 'u> {
    pub fn new(resolve: &'a Resolve, sizes: &'a SizeAlign, words: &'a Words, u: &'a mut Unstructured<'u>) -> Calls<'a, 'u> {
        Calls { resolve, sizes, words, parameter: String::new(), u, image: Vec::new(), handles: Vec::new(), free: Vec::new(), next_handle: 1 }
    }

    /// Some calls, perhaps along one of the ways that lead far, and an outcome as this function returns it.
    pub fn write(mut self, imports: &[Import], ways: &[Vec<usize>], returns: &Function) -> Result<Vec<u8>> {
        let count = self.u.int_in_range(0..=CALLS_MAX)?;
        let way: &[usize] = if self.u.ratio(1, 3)? { self.u.choose(ways)? } else { &[] };
        self.image.resize(HEADER_BYTES + count * CALL_BYTES, 0);
        for at in 0..count {
            let number = way.get(at).map_or_else(|| self.u.choose_index(imports.len()), |number| Ok(*number))?;
            let arguments = self.arguments(&imports[number])?;
            let record = HEADER_BYTES + at * CALL_BYTES;
            self.put(record, number as u64, 4);
            for (place, argument) in (record + 8..).step_by(8).zip(arguments.into_iter().take(ARGUMENTS_MAX)) {
                self.put(place, argument, 8);
            }
        }
        let outcome = match returns.result {
            Some(returned) if self.u.ratio(1, 2)? => {
                let at = self.room(self.sizes.size(&returned).size_wasm32(), 8);
                self.store(&returned, at)?;
                address(at)
            }
            // Zeros, which are a success.
            _ => 0,
        };
        self.put(0, count as u64, 4);
        self.put(8, outcome, 4);
        Ok(self.image)
    }

    fn arguments(&mut self, import: &Import) -> Result<Vec<u64>> {
        let mut arguments = Vec::new();
        let function = match &import.what {
            Imported::Drop(resource) => {
                arguments.push(self.handle(*resource, true)?);
                return Ok(arguments);
            }
            Imported::Function(function) => function,
        };
        if import.signature.indirect_params {
            let types: Vec<Type> = function.params.iter().map(|param| param.ty).collect();
            self.parameter.clear();
            let at = self.room(self.sizes.params(&types).size.size_wasm32(), 8);
            self.store_fields(&types, at)?;
            arguments.push(address(at));
        } else {
            for param in &function.params {
                self.parameter.clone_from(&param.name);
                self.flat(&param.ty, &mut arguments)?;
            }
        }
        if import.signature.retptr {
            let at = self.room(RETURNED_BYTES, 8);
            arguments.push(self.pointer(at)?);
        }
        if let Some(result) = &function.result {
            self.receive(result);
        }
        Ok(arguments)
    }

    /// Appends the values that a parameter is passed as.
    fn flat(&mut self, of: &Type, values: &mut Vec<u64>) -> Result<()> {
        match self.shape(of) {
            Shape::Scalar { bytes } => values.push(self.scalar(of, bytes)?),
            Shape::Text => values.extend(self.text()?),
            Shape::List(item) => values.extend(self.list(&item)?),
            Shape::Fields(fields) => fields.iter().try_for_each(|field| self.flat(field, values))?,
            Shape::Own(resource) => values.push(self.handle(resource, true)?),
            Shape::Borrow(resource) => values.push(self.handle(resource, false)?),
            Shape::Cases { cases, .. } => {
                let end = values.len() + self.width(of);
                let (tag, case) = self.case(&cases)?;
                values.push(tag);
                if let Some(case) = case {
                    self.flat(&case, values)?;
                }
                values.resize(end, 0);
            }
        }
        Ok(())
    }

    /// How many values that are.
    fn width(&self, of: &Type) -> usize {
        match self.shape(of) {
            Shape::Scalar { .. } | Shape::Own(_) | Shape::Borrow(_) => 1,
            Shape::Text | Shape::List(_) => 2,
            Shape::Fields(fields) => fields.iter().map(|field| self.width(field)).sum(),
            Shape::Cases { cases, .. } => 1 + cases.iter().flatten().map(|case| self.width(case)).max().unwrap_or(0),
        }
    }

    /// Writes a value to a place in the image.
    fn store(&mut self, of: &Type, at: usize) -> Result<()> {
        match self.shape(of) {
            Shape::Scalar { bytes } => {
                let value = self.scalar(of, bytes)?;
                self.put(at, value, bytes);
            }
            Shape::Text => {
                let value = self.text()?;
                self.put_pair(at, value);
            }
            Shape::List(item) => {
                let value = self.list(&item)?;
                self.put_pair(at, value);
            }
            Shape::Fields(fields) => self.store_fields(&fields, at)?,
            Shape::Own(resource) => {
                let value = self.handle(resource, true)?;
                self.put(at, value, 4);
            }
            Shape::Borrow(resource) => {
                let value = self.handle(resource, false)?;
                self.put(at, value, 4);
            }
            Shape::Cases { tag: width, cases } => {
                let (tag, case) = self.case(&cases)?;
                self.put(at, tag, self.sizes.size(&int_type(width)).size_wasm32());
                if let Some(case) = case {
                    let payload = self.sizes.payload_offset(width, cases.iter().map(Option::as_ref)).size_wasm32();
                    self.store(&case, at + payload)?;
                }
            }
        }
        Ok(())
    }

    fn store_fields(&mut self, fields: &[Type], at: usize) -> Result<()> {
        let offsets: Vec<usize> = self.sizes.field_offsets(fields).into_iter().map(|(offset, _)| offset.size_wasm32()).collect();
        fields.iter().zip(offsets).try_for_each(|(field, offset)| self.store(field, at + offset))
    }

    fn scalar(&mut self, of: &Type, bytes: usize) -> Result<u64> {
        Ok(match (of, self.u.int_in_range(0..=3)?) {
            (Type::Bool, 0..=2) => self.u.int_in_range(0..=1)?,
            (Type::Char, 0..=2) => u64::from(u32::from(self.u.arbitrary::<char>()?)),
            (_, 0) => self.u.int_in_range(0..=20)?,
            (_, 1) => u64::MAX >> self.u.int_in_range(0..=63)?,
            _ => self.u.arbitrary::<u64>()? & (u64::MAX >> (64 - 8 * bytes)),
        })
    }

    fn text(&mut self) -> Result<[u64; 2]> {
        let text: Vec<u8> = if self.u.ratio(3, 4)? {
            let fits = self.words.iter().find(|(parameters, _)| parameters.contains(&self.parameter.as_str()));
            let words = match fits {
                Some((_, words)) if self.u.ratio(3, 4)? => words,
                _ => &self.u.choose(self.words)?.1,
            };
            self.u.choose(words)?.clone().into_bytes()
        } else {
            let bytes = self.u.int_in_range(0..=TEXT_BYTES_MAX)?;
            self.u.bytes(bytes.min(self.u.len()))?.to_vec()
        };
        self.bytes(&text)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<[u64; 2]> {
        let at = self.room(bytes.len(), 1);
        self.image[at..at + bytes.len()].copy_from_slice(bytes);
        Ok([self.pointer(at)?, self.count(bytes.len())?])
    }

    fn list(&mut self, item: &Type) -> Result<[u64; 2]> {
        if matches!(item, Type::U8) {
            return self.text();
        }
        let count = self.u.int_in_range(0..=ITEMS_MAX)?;
        let bytes = self.sizes.size(item).size_wasm32();
        let at = self.room(count * bytes, 8);
        for number in 0..count {
            self.store(item, at + number * bytes)?;
        }
        Ok([self.pointer(at)?, self.count(count)?])
    }

    fn case(&mut self, cases: &[Option<Type>]) -> Result<(u64, Option<Type>)> {
        let chosen = self.u.choose_index(cases.len())?;
        let tag = if self.u.ratio(1, ODD)? { u64::from(self.u.arbitrary::<u8>()?) } else { chosen as u64 };
        Ok((tag, cases[chosen]))
    }

    fn pointer(&mut self, at: usize) -> Result<u64> {
        if self.u.ratio(1, ODD)? { Ok(self.u.arbitrary::<u32>()?.into()) } else { Ok(address(at)) }
    }

    fn count(&mut self, count: usize) -> Result<u64> {
        if self.u.ratio(1, ODD)? { Ok(self.u.arbitrary::<u32>()?.into()) } else { Ok(count as u64) }
    }

    /// A handle of this resource that is there, mostly. Whoever passes on what it owns has it no more.
    fn handle(&mut self, resource: TypeId, gives: bool) -> Result<u64> {
        let resource = self.origin(resource);
        let fits: Vec<usize> = (0..self.handles.len()).filter(|at| self.handles[*at].0 == resource).collect();
        if fits.is_empty() || self.u.ratio(1, ODD)? {
            return self.u.int_in_range(0..=CALLS_MAX as u64);
        }
        let at = *self.u.choose(&fits)?;
        let handle = self.handles[at].1;
        if gives {
            self.handles.swap_remove(at);
            self.free.push(handle);
        }
        Ok(handle.into())
    }

    /// Notes the handles that a result will hold when the call succeeds: the host numbers them one after the other, and those first that are free again.
    fn receive(&mut self, of: &Type) {
        match self.shape(of) {
            Shape::Own(resource) => {
                let handle = self.free.pop().unwrap_or_else(|| {
                    self.next_handle += 1;
                    self.next_handle - 1
                });
                self.handles.push((self.origin(resource), handle));
            }
            Shape::Fields(fields) => fields.iter().for_each(|field| self.receive(field)),
            // Directories, of which there are two.
            Shape::List(item) => (0..2).for_each(|_| self.receive(&item)),
            // Of a result the first case is the success; of an option the second is something.
            Shape::Cases { cases, .. } => match &cases[..] {
                [Some(ok), _] | [None, Some(ok)] => self.receive(ok),
                _ => {}
            },
            Shape::Scalar { .. } | Shape::Text | Shape::Borrow(_) => {}
        }
    }

    /// Where a resource was defined, through the names that others use for it.
    fn origin(&self, mut id: TypeId) -> TypeId {
        while let TypeDefKind::Type(Type::Id(other)) = self.resolve.types[id].kind {
            id = other;
        }
        id
    }

    fn shape(&self, of: &Type) -> Shape {
        let scalar = || Shape::Scalar { bytes: self.sizes.size(of).size_wasm32() };
        let id = match of {
            Type::String => return Shape::Text,
            Type::Id(id) => *id,
            _ => return scalar(),
        };
        match &self.resolve.types[id].kind {
            TypeDefKind::Type(other) => self.shape(other),
            TypeDefKind::Record(record) => Shape::Fields(record.fields.iter().map(|field| field.ty).collect()),
            TypeDefKind::Tuple(tuple) => Shape::Fields(tuple.types.clone()),
            TypeDefKind::List(item) => Shape::List(*item),
            TypeDefKind::Option(some) => Shape::Cases { tag: Int::U8, cases: vec![None, Some(*some)] },
            TypeDefKind::Result(result) => Shape::Cases { tag: Int::U8, cases: vec![result.ok, result.err] },
            TypeDefKind::Enum(of) => Shape::Cases { tag: of.tag(), cases: vec![None; of.cases.len()] },
            TypeDefKind::Variant(of) => Shape::Cases { tag: of.tag(), cases: of.cases.iter().map(|case| case.ty).collect() },
            TypeDefKind::Handle(Handle::Own(resource)) => Shape::Own(*resource),
            TypeDefKind::Handle(Handle::Borrow(resource)) => Shape::Borrow(*resource),
            TypeDefKind::Flags(_) => scalar(),
            other => unreachable!("WASI 0.2 has no {}", other.as_str()),
        }
    }

    /// So many bytes of the image, which are zero.
    fn room(&mut self, bytes: usize, align: usize) -> usize {
        let at = self.image.len().next_multiple_of(align);
        self.image.resize(at + bytes, 0);
        at
    }

    fn put(&mut self, at: usize, value: u64, bytes: usize) {
        self.image[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }

    fn put_pair(&mut self, at: usize, [first, second]: [u64; 2]) {
        self.put(at, first, 4);
        self.put(at + 4, second, 4);
    }
}

fn address(at: usize) -> u64 {
    u64::from(IMAGE) + at as u64
}

const fn int_type(of: Int) -> Type {
    match of {
        Int::U8 => Type::U8,
        Int::U16 => Type::U16,
        Int::U32 => Type::U32,
        Int::U64 => Type::U64,
    }
}
