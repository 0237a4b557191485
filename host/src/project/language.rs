//! The languages that projects can be written in.

use std::fmt;
use std::str::FromStr;

use super::name::nearest;

/// A language with an SDK and a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// Rust.
    Rust,
    /// C.
    C,
    /// C++.
    Cpp,
    /// Zig.
    Zig,
    /// Go.
    Go,
    /// AssemblyScript.
    AssemblyScript,
}

impl Language {
    /// All of them.
    pub const ALL: [Language; 6] = [
        Language::Rust,
        Language::C,
        Language::Cpp,
        Language::Zig,
        Language::Go,
        Language::AssemblyScript,
    ];

    /// Its name on the command line, in manifests and in paths.
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::C => "c",
            Language::Cpp => "cpp",
            Language::Zig => "zig",
            Language::Go => "go",
            Language::AssemblyScript => "assemblyscript",
        }
    }

    /// Its name in a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Language::Rust => "Rust",
            Language::C => "C",
            Language::Cpp => "C++",
            Language::Zig => "Zig",
            Language::Go => "Go",
            Language::AssemblyScript => "AssemblyScript",
        }
    }

    /// What people write instead of the name.
    fn meant_by(text: &str) -> Option<Language> {
        match text {
            "rs" => Some(Language::Rust),
            "c++" | "cc" | "cxx" | "cplusplus" => Some(Language::Cpp),
            "golang" | "tinygo" => Some(Language::Go),
            "as" | "asc" | "ts" | "typescript" | "js" | "javascript" => {
                Some(Language::AssemblyScript)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// There is no such language here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLanguage {
    /// What was asked for.
    pub given: String,
    /// What was probably meant.
    pub near: Option<Language>,
}

impl fmt::Display for UnknownLanguage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Language::ALL.iter().map(|language| language.name()).collect();
        write!(formatter, "no language is called {:?}", self.given)?;
        if let Some(near) = self.near {
            write!(formatter, "; did you mean {near}?")?;
        }
        write!(formatter, " (the languages are {})", names.join(", "))
    }
}

impl std::error::Error for UnknownLanguage {}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Language, UnknownLanguage> {
        let is = |language: &&Language| language.name() == text;
        if let Some(language) = Language::ALL.iter().find(is) {
            return Ok(*language);
        }
        let lower = text.trim().to_lowercase();
        let near = Language::meant_by(&lower).or_else(|| {
            let name = nearest(&lower, Language::ALL.iter().map(|language| language.name()))?;
            Language::ALL.into_iter().find(|language| language.name() == name)
        });
        Err(UnknownLanguage { given: text.to_owned(), near })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_is_found_by_its_name_only() {
        for language in Language::ALL {
            assert_eq!(language.name().parse(), Ok(language));
        }
        for (given, near) in [
            ("c++", Some(Language::Cpp)),
            ("Rust", Some(Language::Rust)),
            ("golang", Some(Language::Go)),
            ("asemblyscript", Some(Language::AssemblyScript)),
            ("zigg", Some(Language::Zig)),
            ("cobol", None),
            ("", None),
        ] {
            let error = given.parse::<Language>().expect_err("not the name");
            assert_eq!(error.near, near, "{given}");
            assert!(error.to_string().ends_with("rust, c, cpp, zig, go, assemblyscript)"));
        }
    }
}
