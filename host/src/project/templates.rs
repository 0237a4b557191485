//! The templates and the SDKs, as they are in the repository. `host/build.rs` puts them here.

use super::{Language, ProjectName};

/// A file of the repository.
pub(super) struct Embedded {
    /// Where it goes, below the new project's folder; may hold placeholders.
    pub(super) place: &'static str,
    /// What is in it.
    pub(super) content: &'static str,
    /// A template's file has placeholders, an SDK's is copied as it is.
    pub(super) is_template: bool,
}

include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// The files of a new project: where they go, relative to its folder, and what is in them.
pub(super) fn files_for(language: Language, name: &ProjectName) -> Vec<(String, String)> {
    let files = embedded(language).iter();
    files
        .map(|file| {
            let content = match file.is_template {
                true => filled(file.content, name),
                false => file.content.to_owned(),
            };
            (filled(file.place, name), content)
        })
        .collect()
}

fn filled(text: &str, name: &ProjectName) -> String {
    text.replace("{{name}}", name.as_str()).replace("{{ident}}", &name.ident())
}
