//! `raft-host.toml`: read strictly, and every mistake told by line and key.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::name::nearest;
use super::{Language, ProjectName};

/// The file that makes a folder a project.
pub const MANIFEST: &str = "raft-host.toml";

/// Longest manifest that is read.
const MAX_BYTES: u64 = 64 << 10;
/// Most scripts that are played.
const SCRIPTS_MAX: usize = 100;
/// The script that is played if the manifest names none and the file is there.
const DEFAULT_SCRIPT: &str = "check.script";

/// What a manifest says, with the defaults filled in.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) name: ProjectName,
    pub(super) language: Language,
    /// Relative to the project's folder and inside of it.
    pub(super) module: PathBuf,
    /// Relative to the project's folder; may be elsewhere. `None`: the manifest is silent.
    pub(super) scripts: Option<Vec<PathBuf>>,
}

/// What is wrong with a manifest, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The file, as the caller would name it.
    pub file: PathBuf,
    /// The line, counted from 1, if the mistake has one.
    pub line: Option<usize>,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(formatter, ":{line}")?;
        }
        write!(formatter, ": {}", self.message)
    }
}

impl std::error::Error for ManifestError {}

/// The keys that there are.
const KEYS: &[&str] = &["name", "language", "module", "scripts"];

/// Reads a manifest; `shown` is its path in messages.
pub(super) fn read(path: &Path, shown: &Path) -> Result<Manifest, ManifestError> {
    let text = read_text(path).map_err(|error| ManifestError {
        file: shown.to_owned(),
        line: None,
        message: format!("it cannot be read: {error}"),
    })?;
    let mut manifest = parse(&text).map_err(|mistake| ManifestError {
        file: shown.to_owned(),
        line: mistake.at.map(|at| line_of(&text, at)),
        message: mistake.message,
    })?;
    let folder = path.parent().expect("the path of a file");
    if manifest.scripts.is_none() && folder.join(DEFAULT_SCRIPT).is_file() {
        manifest.scripts = Some(vec![DEFAULT_SCRIPT.into()]);
    }
    Ok(manifest)
}

struct Mistake {
    /// Byte of the text.
    at: Option<usize>,
    message: String,
}

impl Mistake {
    fn at(at: usize, message: impl Into<String>) -> Mistake {
        Mistake { at: Some(at), message: message.into() }
    }
}

/// A text and where it is.
type Text = Spanned<String>;

fn parse(text: &str) -> Result<Manifest, Mistake> {
    let table = DeTable::parse(text).map_err(|error| told(&error))?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let (mut name, mut language, mut module, mut scripts) = (None, None, None, None);
    for (key, value) in entries {
        match key.get_ref().as_ref() {
            "name" => name = Some(text_of("name", value)?),
            "language" => language = Some(text_of("language", value)?),
            "module" => module = Some(text_of("module", value)?),
            "scripts" => scripts = Some(texts_of("scripts", value)?),
            unknown => return Err(Mistake::at(key.span().start, no_such_key(unknown))),
        }
    }
    let missing = |key: &str, example: &str| Mistake {
        at: None,
        message: format!("the key {key} is missing; write for example {key} = \"{example}\""),
    };
    let name = name.ok_or_else(|| missing("name", "my-app"))?;
    let name: ProjectName = parsed("name", &name)?;
    let language = language.ok_or_else(|| missing("language", "rust"))?;
    let module = match module {
        Some(module) => inside("module", &module)?,
        None => name.module_file().into(),
    };
    let scripts = scripts.map(|scripts: Vec<Text>| {
        scripts.into_iter().map(|script| PathBuf::from(script.into_inner())).collect()
    });
    Ok(Manifest { name, language: parsed("language", &language)?, module, scripts })
}

fn no_such_key(unknown: &str) -> String {
    let meant = match nearest(unknown, KEYS.iter().copied()) {
        Some(near) => format!("did you mean {near}? "),
        None => String::new(),
    };
    format!("there is no key {unknown}; {meant}the keys are {}", KEYS.join(", "))
}

fn text_of(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Text, Mistake> {
    match value.get_ref() {
        DeValue::String(text) => Ok(Spanned::new(value.span(), text.clone().into_owned())),
        other => {
            let message = format!("{key}: it must be a string in quotes, not {}", named(other));
            Err(Mistake::at(value.span().start, message))
        }
    }
}

fn texts_of(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<Text>, Mistake> {
    let DeValue::Array(values) = value.get_ref() else {
        let message = format!(
            "{key}: it must be a list of strings, as in [\"check.script\"], not {}",
            named(value.get_ref())
        );
        return Err(Mistake::at(value.span().start, message));
    };
    if let Some(beyond) = values.get(SCRIPTS_MAX) {
        let message = format!("{key}: there are more than {SCRIPTS_MAX}");
        return Err(Mistake::at(beyond.span().start, message));
    }
    values.iter().map(|value| text_of(key, value)).collect()
}

fn named(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn parsed<T: FromStr>(key: &str, text: &Text) -> Result<T, Mistake>
where
    T::Err: fmt::Display,
{
    let message = |error| format!("{key}: {error}");
    text.get_ref().parse().map_err(|error| Mistake::at(text.span().start, message(error)))
}

/// A file below the project's folder.
fn inside(key: &str, path: &Text) -> Result<PathBuf, Mistake> {
    let mut clean = PathBuf::new();
    for part in Path::new(path.get_ref()).components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            _ => {
                let message = format!(
                    "{key}: {:?} leaves the project's folder; name a file inside of it",
                    path.get_ref()
                );
                return Err(Mistake::at(path.span().start, message));
            }
        }
    }
    if clean.as_os_str().is_empty() || path.get_ref().ends_with('/') {
        let message = format!("{key}: {:?} names no file", path.get_ref());
        return Err(Mistake::at(path.span().start, message));
    }
    Ok(clean)
}

/// The parser's words on one line.
fn told(error: &toml::de::Error) -> Mistake {
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    Mistake { at: error.span().map(|span| span.start), message }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> (Option<usize>, String) {
        let mistake = parse(text).err().unwrap_or_else(|| panic!("accepted: {text}"));
        (mistake.at.map(|at| line_of(text, at)), mistake.message)
    }

    #[test]
    fn defaults_follow_from_the_name() {
        let manifest = parse("name = \"my-app\"\nlanguage = \"c\"\n").ok().expect("good");
        assert_eq!(manifest.name.as_str(), "my-app");
        assert_eq!(manifest.language, Language::C);
        assert_eq!(manifest.module, Path::new("my_app.wasm"));
        assert_eq!(manifest.scripts, None);
        let text =
            "name = \"x\"\nlanguage = \"go\"\nmodule = \"./out/y.wasm\"\nscripts = [\"a\"]\n";
        let manifest = parse(text).ok().expect("good");
        assert_eq!(manifest.module, Path::new("out/y.wasm"));
        assert_eq!(manifest.scripts, Some(vec![PathBuf::from("a")]));
        let silent = parse("name = \"x\"\nlanguage = \"go\"\nscripts = []\n").ok().expect("good");
        assert_eq!(silent.scripts, Some(Vec::new()), "an empty list is a choice");
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_key() {
        for (text, line, parts) in [
            ("", None, &["name is missing", "my-app"][..]),
            ("name = \"x\"\n", None, &["language is missing", "rust"]),
            ("\nname = \"X\"\nlanguage = \"c\"\n", Some(2), &["name:", "\"X\"", "x would do"]),
            ("name = \"x\"\nlanguage = \"c++\"\n", Some(2), &["language:", "cpp"]),
            ("name = \"x\"\nlanguage = 5\n", Some(2), &["language:", "string", "number"]),
            ("name = \"x\"\nlanguge = \"c\"\n", Some(2), &["languge", "did you mean language?"]),
            ("name = \"x\"\n[zoo]\n", Some(2), &["no key zoo", "name, language, module, scripts"]),
            ("name = \"x\"\nlanguage = \n", Some(2), &["string"]),
            ("name = \"x\"\nname = \"y\"\n", Some(2), &["duplicate"]),
            (
                "name = \"x\"\nlanguage = \"c\"\nmodule = \"../y.wasm\"\n",
                Some(3),
                &["module:", "../y.wasm", "inside"],
            ),
            (
                "name = \"x\"\nlanguage = \"c\"\nscripts = [\n\"a\", 5]\n",
                Some(4),
                &["scripts:", "string", "number"],
            ),
            ("name = \"x\"\nscripts = \"a\"\n", Some(2), &["scripts:", "list"]),
            ("name = \"x\"\nlanguage = \"c\"\nmodule = \"\"\n", Some(3), &["no file"]),
        ] {
            let (at, message) = mistake(text);
            assert_eq!(at, line, "{text}: {message}");
            for part in parts {
                assert!(message.contains(part), "{part:?} is not in: {message}");
            }
        }
    }
}
