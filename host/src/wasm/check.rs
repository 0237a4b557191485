//! Everything that is asked of a module before a cluster takes it. Each check says the same
//! on every node: it looks at the bytes and the replicated limits only.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use raft_fsm_abi as abi;
use serde::{Deserialize, Serialize};
use wasmparser::{
    BinaryReaderError, ExternalKind, FuncType, KnownCustom, Name, NameSectionReader, Operator,
    Parser, Payload, TypeRef, ValType, Validator, WasmFeatures, types::TypesRef,
};

use super::engine::FEATURES;
use super::window::Window;
use super::words::{LISTED_MAX, is_number, listed, shown, unknown_import};
use super::{abi as imports, complexity, wasi};
use crate::fsm::{Limits, ModuleRefused};
use crate::types::ModuleHash;

/// Most elements of all tables together: tables live in the host's memory, which the
/// replicated memory limit does not count.
const TABLE_ELEMENTS_MAX: u64 = 1 << 20;
/// Most mutable globals: each is copied at every checkpoint and into every image, whatever the
/// guest wrote, and no compiler emits more than some dozens.
const MUTABLE_GLOBALS_MAX: usize = 4096;
/// What precedes the number in the name of an ABI marker.
const ABI_MARKER_STEM: &str = "raft_fsm_abi_v";

const WASM_MAGIC: &[u8] = b"\0asm";
const COMPONENT_VERSION: &[u8] = &[0x0d, 0x00, 0x01, 0x00];

/// Why a module is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CheckError {
    /// Larger than the limits allow.
    #[error("the module has {size} bytes; the cluster's limit is {max}")]
    TooLarge {
        /// The module's size.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// Not WebAssembly at all.
    #[error(
        "this is not a WebAssembly binary (it does not start with \\0asm); \
         text format (.wat) must be assembled first"
    )]
    NotWasm,
    /// A component instead of a core module.
    #[error(
        "this is a WebAssembly component; raft-host runs core modules \
         (build for wasm32-unknown-unknown or as a WASI preview 1 reactor)"
    )]
    Component,
    /// The file ends in the middle.
    #[error("the module is truncated: {0}")]
    Truncated(String),
    /// A valid module that uses something switched off.
    #[error(
        "the module uses a WebAssembly feature that is off because replicas could disagree \
         or because an image cannot hold its state: {0}"
    )]
    UnsupportedFeature(String),
    /// Not a valid module.
    #[error("the module is malformed: {0}")]
    Malformed(String),
    /// No ABI marker.
    #[error(
        "the module does not say which guest ABI it speaks: \
         export a function `{}` (every SDK does)",
        abi::ABI_MARKER
    )]
    MarkerMissing,
    /// The marker is there, but not as a function.
    #[error("the export `{}` must be a function", abi::ABI_MARKER)]
    MarkerNotAFunction,
    /// Made for another version of the ABI.
    #[error(
        "the module is made for another guest ABI (it exports `{found}`); \
         this host speaks version 1 (`{}`)",
        abi::ABI_MARKER
    )]
    OtherAbi {
        /// The marker found.
        found: String,
    },
    /// Imports of functions that do not exist.
    #[error("the module imports what this host does not offer: {}", listed(.0))]
    UnknownImports(Vec<String>),
    /// An import that is no function.
    #[error("the module imports the {kind} `{name}`; {hint}")]
    ImportKind {
        /// Module and name of the import.
        name: String,
        /// What it imports.
        kind: Cow<'static, str>,
        /// What to do instead.
        hint: Cow<'static, str>,
    },
    /// A known import with another signature.
    #[error("the import `{name}` is declared as {found}; it is {expected}")]
    ImportSignature {
        /// Module and name of the import.
        name: String,
        /// The signature it has.
        expected: String,
        /// The signature the module declares.
        found: String,
    },
    /// A required export is missing.
    #[error("the module does not export the required function `{name}`: {expected}")]
    ExportMissing {
        /// Name of the export.
        name: Cow<'static, str>,
        /// The signature it must have.
        expected: String,
    },
    /// An export of the ABI's with another signature or kind.
    #[error("the export `{name}` is {found}; it must be {expected}")]
    ExportSignature {
        /// Name of the export.
        name: Cow<'static, str>,
        /// The signature it must have.
        expected: String,
        /// What it is.
        found: String,
    },
    /// No linear memory under the agreed name.
    #[error("the module must define one linear memory and export it as `memory`: {0}")]
    Memory(Cow<'static, str>),
    /// A window is wanted, and there is none.
    #[error("the module imports `raft_fsm_v1.window` and has no window: {0}")]
    Window(Cow<'static, str>),
    /// The memory is larger from the start than it may ever be.
    #[error("the module's memory starts with {minimum} bytes; the cluster's limit is {max}")]
    MemoryMinimum {
        /// Bytes at start.
        minimum: u64,
        /// The limit.
        max: u64,
    },
    /// Tables that are too large.
    #[error("the module's tables have {elements} elements; at most {max} are allowed")]
    TablesTooLarge {
        /// Elements of all tables together.
        elements: u64,
        /// The limit.
        max: u64,
    },
    /// More mutable globals than can be copied again and again.
    #[error("the module has {count} mutable globals; at most {max} are allowed")]
    TooManyGlobals {
        /// How many there are.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// More functions than compile in reasonable time.
    #[error("the module has {count} functions; at most {max} are allowed")]
    TooManyFunctions {
        /// How many there are.
        count: u32,
        /// The limit.
        max: usize,
    },
    /// A function that would keep the compiler busy for minutes, or take gigabytes.
    #[error("function {function} of the module is too complex to compile: {reason}")]
    FunctionTooComplex {
        /// Its index.
        function: u32,
        /// What there is too much of.
        reason: String,
    },
    /// Functions that together would keep the compiler busy for minutes.
    #[error("the module is too complex to compile: {reason}")]
    ModuleTooComplex {
        /// What there is too much of.
        reason: String,
    },
    /// State that a memory image does not hold.
    #[error(
        "the module keeps state where a memory image cannot hold it: {}; \
         portable mode, which will allow this, does not exist yet", listed(.0)
    )]
    HiddenState(Vec<String>),
}

impl From<CheckError> for ModuleRefused {
    fn from(error: CheckError) -> ModuleRefused {
        ModuleRefused(error.to_string())
    }
}

/// What is known of a module that passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleReport {
    /// SHA-256 of the bytes.
    pub hash: ModuleHash,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Memory at start, in bytes.
    pub memory_min_bytes: u64,
    /// Most memory that the module asks for itself, in bytes.
    pub memory_max_bytes: Option<u64>,
    /// Whether it answers queries.
    pub has_query: bool,
    /// Whether it says which class a command is of.
    pub has_classes: bool,
    /// Whether it checks its own state.
    pub has_check: bool,
    /// Whether it names the format of its snapshots.
    pub has_state_version: bool,
    /// Whether it says which formats of snapshots it takes.
    pub has_restores: bool,
    /// Whether it takes over the memory of another module's instance.
    pub has_adopt: bool,
    /// Whether it wants `init`.
    pub has_init: bool,
    /// What runs after instantiation, in this order.
    pub initializers: Vec<String>,
    /// What it imports, as `module.name`.
    pub imports: Vec<String>,
    /// Indices of its mutable globals, ascending.
    pub mutable_globals: Vec<u32>,
    /// Functions that it defines.
    pub function_count: u32,
    /// The function of the start section.
    pub(super) start_function: Option<u32>,
    /// Where short inputs go, if the module has a window.
    pub(super) window: Option<Window>,
}

/// Checks a module as a cluster with these limits would before it takes it, short of compiling it.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn check_module(bytes: &[u8], limits: &Limits) -> Result<ModuleReport, CheckError> {
    check_size(bytes.len() as u64, limits)?;
    check_header(bytes)?;
    // Even the validator must not see what is out of proportion, not even to explain it.
    complexity::door::check(bytes).map_err(|error| explain_invalid(bytes, &error))??;
    check_held(bytes, limits)
}

/// The same for one that a cluster has in its log: what decides whether an activation is done, or
/// whether a node starts, must not get stricter with a release.
///
/// # Errors
///
/// The first thing that is wrong.
pub(super) fn check_held(bytes: &[u8], limits: &Limits) -> Result<ModuleReport, CheckError> {
    let size = bytes.len() as u64;
    check_size(size, limits)?;
    check_header(bytes)?;
    complexity::check(bytes).map_err(|error| explain_invalid(bytes, &error))??;
    let types = Validator::new_with_features(FEATURES)
        .validate_all(bytes)
        .map_err(|error| explain_invalid(bytes, &error))?;
    let types = types.as_ref();
    let contents = Contents::read(bytes)?;

    check_imports(&contents, types)?;
    check_marker(&contents)?;
    check_exports(&contents, types)?;
    let memory = check_memory(&contents, types)?;
    check_memory_minimum(memory.0, limits)?;
    let window = check_window(bytes, &contents, memory.0)?;
    check_tables(&contents, types)?;
    let mutable_globals = check_globals(types)?;
    if !contents.hidden_state.is_empty() {
        return Err(CheckError::HiddenState(contents.hidden_state));
    }

    let has = |name: &str| contents.exports.contains_key(name);
    let mut initializers = Vec::new();
    if contents.start_function.is_some() {
        initializers.push("the start section".to_owned());
    }
    if let Some(name) =
        [abi::EXPORT_INITIALIZE, abi::EXPORT_START].into_iter().find(|name| has(name))
    {
        initializers.push(name.to_owned());
    }
    Ok(ModuleReport {
        hash: ModuleHash::of(bytes),
        size_bytes: size,
        memory_min_bytes: memory.0,
        memory_max_bytes: memory.1,
        has_query: has(abi::EXPORT_QUERY),
        has_classes: has(abi::EXPORT_CLASSIFY),
        has_check: has(abi::EXPORT_CHECK),
        has_state_version: has(abi::EXPORT_STATE_VERSION),
        has_restores: has(abi::EXPORT_RESTORES),
        has_adopt: has(abi::EXPORT_ADOPT),
        has_init: has(abi::EXPORT_INIT),
        initializers,
        imports: contents.imports.iter().map(|import| import.full_name()).collect(),
        mutable_globals,
        function_count: contents.function_count,
        start_function: contents.start_function,
        window,
    })
}

/// Those checks again that depend on the limits, which may have changed since.
pub(super) fn check_limits(report: &ModuleReport, limits: &Limits) -> Result<(), CheckError> {
    check_size(report.size_bytes, limits)?;
    check_memory_minimum(report.memory_min_bytes, limits)
}

fn check_size(size: u64, limits: &Limits) -> Result<(), CheckError> {
    if size > limits.module_max_bytes {
        return Err(CheckError::TooLarge { size, max: limits.module_max_bytes });
    }
    Ok(())
}

fn check_memory_minimum(minimum: u64, limits: &Limits) -> Result<(), CheckError> {
    if minimum > limits.memory_max_bytes {
        return Err(CheckError::MemoryMinimum { minimum, max: limits.memory_max_bytes });
    }
    Ok(())
}

fn check_header(bytes: &[u8]) -> Result<(), CheckError> {
    let start = &bytes[..bytes.len().min(4)];
    if start.is_empty() || !WASM_MAGIC.starts_with(start) {
        return Err(CheckError::NotWasm);
    }
    match bytes.get(4..8) {
        None => Err(CheckError::Truncated("it ends within the header".to_owned())),
        Some(COMPONENT_VERSION) => Err(CheckError::Component),
        Some(_) => Ok(()),
    }
}

/// Tells a truncated or malformed module from a valid one that uses too much.
fn explain_invalid(bytes: &[u8], error: &BinaryReaderError) -> CheckError {
    let text = format!("{} (at byte {:#x})", shown(error.message()), error.offset());
    if Validator::new_with_features(WasmFeatures::all()).validate_all(bytes).is_ok() {
        return CheckError::UnsupportedFeature(text);
    }
    if error.message().contains("unexpected end") {
        return CheckError::Truncated(text);
    }
    CheckError::Malformed(text)
}

struct Import {
    module: String,
    name: String,
    ty: TypeRef,
}

impl Import {
    fn full_name(&self) -> String {
        format!("{}.{}", self.module, self.name)
    }
}

/// What the checks need from a valid module, read in one pass.
struct Contents {
    imports: Vec<Import>,
    exports: BTreeMap<String, (ExternalKind, u32)>,
    start_function: Option<u32>,
    function_count: u32,
    tables_defined: u32,
    hidden_state: Vec<String>,
}

impl Contents {
    fn read(bytes: &[u8]) -> Result<Contents, CheckError> {
        Contents::try_read(bytes).map_err(|error| explain_invalid(bytes, &error))
    }

    fn try_read(bytes: &[u8]) -> Result<Contents, BinaryReaderError> {
        let mut contents = Contents {
            imports: Vec::new(),
            exports: BTreeMap::new(),
            start_function: None,
            function_count: 0,
            tables_defined: 0,
            hidden_state: Vec::new(),
        };
        let mut functions_imported = 0;
        let mut hidden: Vec<(u32, &'static str)> = Vec::new();
        let mut name_sections = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ImportSection(reader) => {
                    for import in reader.into_imports() {
                        let import = import?;
                        if matches!(import.ty, TypeRef::Func(_)) {
                            functions_imported += 1;
                        }
                        contents.imports.push(Import {
                            module: import.module.to_owned(),
                            name: import.name.to_owned(),
                            ty: import.ty,
                        });
                    }
                }
                Payload::TableSection(reader) => contents.tables_defined = reader.count(),
                Payload::ExportSection(reader) => {
                    for export in reader {
                        let export = export?;
                        contents
                            .exports
                            .insert(export.name.to_owned(), (export.kind, export.index));
                    }
                }
                Payload::StartSection { func, .. } => contents.start_function = Some(func),
                Payload::CodeSectionEntry(body) => {
                    let index = functions_imported + contents.function_count;
                    contents.function_count += 1;
                    let mut operators = body.get_operators_reader()?;
                    while !operators.eof() {
                        if let Some(instruction) = writes_hidden_state(&operators.read()?)
                            && !hidden.contains(&(index, instruction))
                            && hidden.len() <= LISTED_MAX
                        {
                            hidden.push((index, instruction));
                        }
                    }
                }
                Payload::CustomSection(section) => {
                    if let KnownCustom::Name(reader) = section.as_known() {
                        name_sections.push(reader);
                    }
                }
                _ => {}
            }
        }
        let names = names_of(name_sections, &hidden);
        contents.hidden_state = hidden
            .into_iter()
            .map(|(index, instruction)| match names.get(&index) {
                Some(name) => format!("`{instruction}` in function {index} ({})", shown(name)),
                None => format!("`{instruction}` in function {index}"),
            })
            .collect();
        Ok(contents)
    }
}

/// The names of the functions that are told of; a module may have very many others.
fn names_of<'a>(
    sections: Vec<NameSectionReader<'a>>,
    told: &[(u32, &'static str)],
) -> BTreeMap<u32, &'a str> {
    let mut names = BTreeMap::new();
    if told.is_empty() {
        return names;
    }
    // Names are for people: a broken name section is none.
    for entry in sections.into_iter().flat_map(|section| section.into_iter().map_while(Result::ok))
    {
        if let Name::Function(map) = entry {
            let namings = map.into_iter().map_while(Result::ok);
            let wanted = namings.filter(|naming| told.iter().any(|(at, _)| *at == naming.index));
            names.extend(wanted.map(|naming| (naming.index, naming.name)));
        }
    }
    names
}

/// Names the instructions that change what neither memory nor globals hold: tables, and
/// which segments were dropped.
fn writes_hidden_state(operator: &Operator<'_>) -> Option<&'static str> {
    Some(match operator {
        Operator::TableSet { .. } => "table.set",
        Operator::TableGrow { .. } => "table.grow",
        Operator::TableFill { .. } => "table.fill",
        Operator::TableCopy { .. } => "table.copy",
        Operator::TableInit { .. } => "table.init",
        Operator::DataDrop { .. } => "data.drop",
        Operator::ElemDrop { .. } => "elem.drop",
        _ => return None,
    })
}

fn check_imports(contents: &Contents, types: TypesRef<'_>) -> Result<(), CheckError> {
    let mut unknown = Vec::new();
    let mut function = 0;
    for import in &contents.imports {
        let (kind, hint) = match import.ty {
            TypeRef::Func(_) => {
                match known_import(&import.module, &import.name) {
                    None => unknown.push(unknown_import(&import.module, &import.name)),
                    Some(expected) => {
                        let found = function_type(&types, function);
                        if !expected.matches(found) {
                            return Err(CheckError::ImportSignature {
                                name: shown(&import.full_name()),
                                expected: expected.to_string(),
                                found: signature_text(found.params(), found.results()),
                            });
                        }
                    }
                }
                function += 1;
                continue;
            }
            TypeRef::Memory(_) => {
                ("memory", "define it in the module and export it as `memory` (no --import-memory)")
            }
            TypeRef::Table(_) => ("table", "define it in the module (no --import-table)"),
            TypeRef::Global(_) => ("global", "define it in the module (no dynamic linking)"),
            _ => ("item", "only functions can be imported"),
        };
        let name = shown(&import.full_name());
        return Err(CheckError::ImportKind { name, kind: kind.into(), hint: hint.into() });
    }
    if unknown.is_empty() { Ok(()) } else { Err(CheckError::UnknownImports(unknown)) }
}

fn known_import(module: &str, name: &str) -> Option<&'static Signature> {
    let of = |table: &'static [Signature]| table.iter().find(|known| known.name == name);
    match module {
        abi::IMPORT_MODULE => of(imports::IMPORTS),
        wasi::IMPORT_MODULE => of(wasi::IMPORTS),
        _ => None,
    }
}

fn check_marker(contents: &Contents) -> Result<(), CheckError> {
    match contents.exports.get(abi::ABI_MARKER) {
        Some((ExternalKind::Func, _)) => return Ok(()),
        Some(_) => return Err(CheckError::MarkerNotAFunction),
        None => {}
    }
    let other = contents
        .exports
        .keys()
        .find(|name| name.strip_prefix(ABI_MARKER_STEM).is_some_and(is_number));
    Err(match other {
        Some(found) => CheckError::OtherAbi { found: shown(found) },
        None => CheckError::MarkerMissing,
    })
}

fn check_exports(contents: &Contents, types: TypesRef<'_>) -> Result<(), CheckError> {
    const LEN_TO_STATUS: Signature = Signature::new("", &[ValType::I32], &[ValType::I32]);
    const TO_STATUS: Signature = Signature::new("", &[], &[ValType::I32]);
    const PLAIN: Signature = Signature::new("", &[], &[]);
    let exports: [(&'static str, &Signature, bool); 12] = [
        (abi::EXPORT_APPLY, &LEN_TO_STATUS, true),
        (abi::EXPORT_SNAPSHOT, &TO_STATUS, true),
        (abi::EXPORT_RESTORE, &LEN_TO_STATUS, true),
        (abi::EXPORT_QUERY, &LEN_TO_STATUS, false),
        (abi::EXPORT_CLASSIFY, &LEN_TO_STATUS, false),
        (abi::EXPORT_CHECK, &TO_STATUS, false),
        (abi::EXPORT_STATE_VERSION, &TO_STATUS, false),
        (abi::EXPORT_RESTORES, &LEN_TO_STATUS, false),
        (abi::EXPORT_ADOPT, &LEN_TO_STATUS, false),
        (abi::EXPORT_INIT, &TO_STATUS, false),
        (abi::EXPORT_INITIALIZE, &PLAIN, false),
        (abi::EXPORT_START, &PLAIN, false),
    ];
    for (name, expected, required) in exports {
        let found = match contents.exports.get(name) {
            None if required => {
                let expected = expected.to_string();
                return Err(CheckError::ExportMissing { name: name.into(), expected });
            }
            None => continue,
            Some((ExternalKind::Func, index)) => {
                let found = function_type(&types, *index);
                if expected.matches(found) {
                    continue;
                }
                signature_text(found.params(), found.results())
            }
            Some(_) => "not a function".to_owned(),
        };
        let expected = expected.to_string();
        return Err(CheckError::ExportSignature { name: name.into(), expected, found });
    }
    Ok(())
}

/// Minimum and own maximum of the module's memory, in bytes.
fn check_memory(
    contents: &Contents,
    types: TypesRef<'_>,
) -> Result<(u64, Option<u64>), CheckError> {
    const PAGE_BYTES: u64 = 64 << 10;
    match contents.exports.get(abi::EXPORT_MEMORY) {
        Some((ExternalKind::Memory, _)) => {}
        Some(_) => return Err(CheckError::Memory("`memory` is not a memory".into())),
        None if types.memory_count() == 0 => {
            return Err(CheckError::Memory("it defines none".into()));
        }
        None => return Err(CheckError::Memory("it is not exported".into())),
    }
    // Imported, several, shared and 64-bit memories were refused before.
    let memory = types.memory_at(0);
    assert!(types.memory_count() == 1 && !memory.memory64 && !memory.shared);
    let minimum = memory.initial * PAGE_BYTES;
    Ok((minimum, memory.maximum.map(|pages| pages * PAGE_BYTES)))
}

/// Where the window of a module is that wants one.
fn check_window(
    bytes: &[u8],
    contents: &Contents,
    memory_min_bytes: u64,
) -> Result<Option<Window>, CheckError> {
    let wants = |import: &Import| {
        (&*import.module, &*import.name) == (abi::IMPORT_MODULE, abi::IMPORT_WINDOW)
    };
    if !contents.imports.iter().any(wants) {
        return Ok(None);
    }
    let export = contents.exports.get(abi::EXPORT_WINDOW).copied();
    Window::find(bytes, export, memory_min_bytes)
        .map_err(|error| explain_invalid(bytes, &error))?
        .map(Some)
        .map_err(|reason| CheckError::Window(reason.to_string().into()))
}

fn check_tables(contents: &Contents, types: TypesRef<'_>) -> Result<(), CheckError> {
    let elements = (0..contents.tables_defined)
        .fold(0u64, |sum, index| sum.saturating_add(types.table_at(index).initial));
    if elements > TABLE_ELEMENTS_MAX {
        return Err(CheckError::TablesTooLarge { elements, max: TABLE_ELEMENTS_MAX });
    }
    Ok(())
}

/// The mutable globals, all of which must be numbers.
fn check_globals(types: TypesRef<'_>) -> Result<Vec<u32>, CheckError> {
    let mut mutable = Vec::new();
    let mut references = Vec::new();
    for index in 0..types.global_count() {
        let global = types.global_at(index);
        match global.content_type {
            _ if !global.mutable => {}
            ValType::Ref(_) => references.push(format!("the mutable reference global {index}")),
            _ => mutable.push(index),
        }
    }
    if !references.is_empty() {
        return Err(CheckError::HiddenState(references));
    }
    match mutable.len() {
        ..=MUTABLE_GLOBALS_MAX => Ok(mutable),
        count => Err(CheckError::TooManyGlobals { count, max: MUTABLE_GLOBALS_MAX }),
    }
}

fn function_type<'a>(types: &'a TypesRef<'_>, index: u32) -> &'a FuncType {
    types[types.core_function_at(index)].unwrap_func()
}

/// The signature of an import or export.
pub(super) struct Signature {
    /// Name of the function.
    pub(super) name: &'static str,
    pub(super) params: &'static [ValType],
    pub(super) results: &'static [ValType],
}

impl Signature {
    pub(super) const fn new(
        name: &'static str,
        params: &'static [ValType],
        results: &'static [ValType],
    ) -> Signature {
        Signature { name, params, results }
    }

    fn matches(&self, found: &FuncType) -> bool {
        self.params == found.params() && self.results == found.results()
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&signature_text(self.params, self.results))
    }
}

fn signature_text(params: &[ValType], results: &[ValType]) -> String {
    let list =
        |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("({}) -> ({})", list(params), list(results))
}
