//! Words about what a module contains. A module's names are chosen by whoever made it, and
//! what is said of them ends in logs, terminals and messages of bounded length.

use raft_fsm_abi as abi;

use super::wasi;

/// How many of a kind of finding a message lists.
pub(super) const LISTED_MAX: usize = 8;
/// Most characters of a foreign name that a message shows.
const NAME_CHARS_MAX: usize = 120;
/// What precedes the number in the name of an import module of the ABI.
const IMPORT_MODULE_STEM: &str = "raft_fsm_v";

/// A foreign text as a message may show it: cut, and without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (position, character) in text.chars().enumerate() {
        if position == NAME_CHARS_MAX {
            shown.push('…');
            break;
        }
        push_plain(&mut shown, character);
    }
    shown
}

/// Adds a character that may have been chosen to confuse a reader, or his terminal.
pub(super) fn push_plain(text: &mut String, character: char) {
    // Marks that turn the direction of text around are no control characters to `char`.
    let turns = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if character.is_control() || turns {
        text.extend(character.escape_default());
    } else {
        text.push(character);
    }
}

/// The first of them, and whether there are more.
pub(super) fn listed(items: &[String]) -> String {
    let mut text = items.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if items.len() > LISTED_MAX {
        text.push_str(", …");
    }
    text
}

/// Whether it is the number of a version.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Names an import that does not exist, with a hint where it is known where such come from.
pub(super) fn unknown_import(module: &str, name: &str) -> String {
    let shown = shown(&format!("{module}.{name}"));
    match hint(module, name) {
        Some(hint) => format!("`{shown}` ({hint})"),
        None => format!("`{shown}`"),
    }
}

fn hint(module: &str, name: &str) -> Option<&'static str> {
    const EMSCRIPTEN: &str = "emscripten expects JavaScript around it: link with -sSTANDALONE_WASM --no-entry, or \
         build with clang and wasi-libc";
    const BINDGEN: &str = "wasm-bindgen: do not build for JavaScript";
    let other_abi = module.strip_prefix(IMPORT_MODULE_STEM).is_some_and(is_number);
    Some(match module {
        abi::IMPORT_MODULE => "not part of guest ABI version 1",
        _ if other_abi => "another version of the guest ABI; this host speaks version 1",
        wasi::IMPORT_MODULE => "not part of WASI preview 1",
        "wasi_unstable" => "WASI preview 0; rebuild with a current toolchain",
        "wasi" if name == "thread-spawn" => "threads: build without them",
        "wasix_32v1" | "wasix_64v1" => "WASIX; build for WASI preview 1",
        "env" if name == "abort" => "AssemblyScript: build with --use abort=",
        "env" if is_emscripten(name) => EMSCRIPTEN,
        "env" => "an undefined symbol at link time, or code that expects JavaScript around it",
        // What emscripten's optimiser makes of `env` and `wasi_snapshot_preview1`.
        "a" if name.len() <= 2 => EMSCRIPTEN,
        "GOT.mem" | "GOT.func" => "dynamic linking; link into one module (no -shared, no -pie)",
        "go" | "gojs" => {
            "Go for JavaScript; build with GOOS=wasip1 GOARCH=wasm -buildmode=c-shared"
        }
        "__wbindgen_placeholder__" | "__wbindgen_externref_xform__" | "wbg" => BINDGEN,
        module if module.starts_with("./") && module.ends_with("_bg.js") => BINDGEN,
        module if module.starts_with("wasi:") => "WASI preview 2; build for preview 1",
        module if module.starts_with("wasi_") => {
            "no version of WASI that this host knows; build for preview 1"
        }
        module if module.starts_with("wasm:") => "a builtin of JavaScript engines",
        _ => return None,
    })
}

fn is_emscripten(name: &str) -> bool {
    ["emscripten_", "_emscripten_", "__syscall_", "invoke_", "__cxa_", "_embind_"]
        .iter()
        .any(|stem| name.starts_with(stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_names_are_cut_and_harmless() {
        assert_eq!(shown("plain ü"), "plain ü");
        assert_eq!(shown("a\n\u{1b}[31m\u{202e}b"), "a\\n\\u{1b}[31m\\u{202e}b");
        assert_eq!(shown(&"x".repeat(100_000)), format!("{}…", "x".repeat(120)));
    }

    #[test]
    fn common_imports_come_with_a_hint() {
        for (module, name, words) in [
            ("env", "emscripten_memcpy_js", "-sSTANDALONE_WASM"),
            ("env", "invoke_vi", "-sSTANDALONE_WASM"),
            ("env", "my_function", "undefined symbol"),
            ("a", "a", "emscripten"),
            ("GOT.mem", "errno", "dynamic linking"),
            ("gojs", "runtime.wasmExit", "GOOS=wasip1"),
            ("go", "debug", "GOOS=wasip1"),
            ("wasi:io/poll@0.2.0", "poll", "preview 2"),
            ("wasi_unstable", "fd_write", "preview 0"),
            ("wasi_snapshot_preview2", "poll", "no version of WASI"),
            ("wasi", "thread-spawn", "threads"),
            ("wasix_32v1", "futex_wait", "WASIX"),
            ("./guest_bg.js", "__wbg_log_1", "wasm-bindgen"),
            ("wbg", "__wbindgen_throw", "wasm-bindgen"),
            ("wasm:js-string", "length", "JavaScript"),
            ("raft_fsm_v2", "read", "another version"),
        ] {
            let said = unknown_import(module, name);
            assert!(said.starts_with(&format!("`{module}.{name}` (")), "{said}");
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(unknown_import("own", "thing"), "`own.thing`");
    }
}
