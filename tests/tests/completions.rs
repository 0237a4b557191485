//! The scripts of `raft-host completions`, each in its shell: what the shell offers for the last
//! word of a line.
//!
//! A shell that is not here is skipped with a line that names it; with
//! `RAFT_HOST_ALL_TOOLCHAINS=1` that fails.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use raft_host_tests::{Cli, lacks_shell};

const PROGRAM: &str = env!("CARGO_BIN_EXE_raft-host-under-test");

/// Time for a shell to start and complete a word.
const PATIENCE: Duration = Duration::from_secs(120);

/// A line, and what must be among the offers, and what must not.
const LINES: [(&str, &[&str], &[&str]); 17] = [
    ("raft-host mem", &["members"], &["modules"]),
    ("raft-host members ", &["list", "add", "promote", "remove", "transfer"], &["members"]),
    ("raft-host members pro", &["promote"], &["list"]),
    ("raft-host members add --n", &["--node-id"], &["--endpoint"]),
    ("raft-host --", &["--data-dir", "--endpoint", "--output"], &["--session"]),
    ("raft-host -", &["--data-dir", "--endpoint"], &["--session", "members"]),
    ("raft-host apply --se", &["--session"], &["--data-dir"]),
    ("raft-host snapshot ", &["take"], &[]),
    ("raft-host engine ", &["show", "offered", "set"], &[]),
    ("raft-host status -o ", &["table", "json"], &[]),
    // Options in front of what is completed.
    ("raft-host --endpoint a:1 mem", &["members"], &["modules"]),
    ("raft-host --endpoint a:1 members pro", &["promote"], &["list"]),
    ("raft-host members --endpoint a:1 pro", &["promote"], &["list"]),
    ("raft-host --listen a:1 --da", &["--data-dir"], &[]),
    ("raft-host --join a:1,b:2 --da", &["--data-dir"], &[]),
    ("raft-host upgrade --replaces 0123@5 --la", &["--label"], &[]),
    // What means nothing to a command is not offered.
    ("raft-host demo --", &["--keep"], &["--endpoint", "--output"]),
];

/// The words that a shell offers for each line.
fn check(shell: &str, offers: impl Fn(&Path, &str) -> String) {
    if lacks_shell(shell) {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text = Cli::new(PROGRAM, &[]).run(&["completions", shell]).ok();
    // The name by which zsh looks it up; to the others it is any file.
    std::fs::write(dir.path().join("_raft-host"), text).expect("written");
    // Some shells complete only what they can run.
    std::os::unix::fs::symlink(PROGRAM, dir.path().join("raft-host")).expect("a link");
    for (line, wanted, unwanted) in LINES {
        let said = offers(dir.path(), line);
        let words: Vec<&str> = said.lines().filter_map(|it| it.split('\t').next()).collect();
        for word in wanted {
            assert!(words.contains(word), "{shell}: {line:?} does not offer {word}: {said}");
        }
        for word in unwanted {
            assert!(!words.contains(word), "{shell}: {line:?} offers {word}: {said}");
        }
    }
}

/// Runs a program of a shell that gets the folder with the script, and the line.
fn ask(shell: &str, options: &[&str], program: &str, dir: &Path, line: &str) -> String {
    let place = dir.join(format!("program.{shell}"));
    std::fs::write(&place, program).expect("written");
    let path = std::env::var("PATH").unwrap_or_default();
    let out = std::fs::File::create(dir.join("offers")).expect("a file");
    let err = std::fs::File::create(dir.join("complaints")).expect("a file");
    let mut child = Command::new(shell)
        .args(options)
        .arg(&place)
        .arg(dir)
        .arg(line)
        .env("HOME", dir)
        .env("PATH", format!("{}:{path}", dir.display()))
        .env("TERM", "dumb")
        .env_remove("ZDOTDIR")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_DATA_HOME")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .expect("the shell starts");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("it can be killed");
            panic!("{shell} did not complete {line:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let read = |name| std::fs::read_to_string(dir.join(name)).expect("UTF-8");
    let (offers, complaints) = (read("offers"), read("complaints"));
    assert!(status.success() && complaints.is_empty(), "{shell}, {line:?}: {complaints}");
    offers
}

#[test]
fn bash_completes_commands_actions_and_options() {
    // As bash itself calls what was registered with `complete -F`.
    let program = r#"
        source "$1/_raft-host"
        function=$(complete -p raft-host | sed -E 's/.*-F ([^ ]+).*/\1/')
        read -r -a COMP_WORDS <<< "$2"
        case $2 in *' ') COMP_WORDS+=('') ;; esac
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        "$function" raft-host "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    check("bash", |dir, line| ask("bash", &["--norc"], program, dir, line));
}

#[test]
fn fish_completes_commands_actions_and_options() {
    let program = r#"
        source "$argv[1]/_raft-host"
        complete -C "$argv[2]"
    "#;
    check("fish", |dir, line| ask("fish", &["--no-config"], program, dir, line));
}

#[test]
fn zsh_completes_commands_actions_and_options() {
    // zsh completes on a terminal only: an inner shell gets one, and writes down what is offered.
    let program = r#"
        zmodload zsh/zpty || exit 1
        inner='
            PROMPT=
            fpath=("$DIR" $fpath)
            autoload -U compinit
            compinit -u -D
            bindkey "^I" complete-word
            compadd() {
                # With these it fills variables of the functions that look for matches.
                if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
                    builtin compadd "$@"
                    return
                fi
                local -a found
                builtin compadd -O found "$@"
                (( $#found )) && print -rl -- $found >>"$DIR/found"
                builtin compadd "$@"
            }
            done_now() { : >"$DIR/done"; exit }
            comppostfuncs=(done_now)
            : >"$DIR/ready"
        '
        export DIR=$1
        rm -f $DIR/{found,done,ready,inner}
        print -r -- $inner >$DIR/inner
        zpty -b shell zsh -f -i
        zpty -w shell "source $DIR/inner"
        until [[ -e $DIR/ready ]]; do zpty -r shell drained; sleep 0.05; done
        zpty -n -w shell "$2"$'\t'
        until [[ -e $DIR/done ]]; do zpty -r shell drained; sleep 0.05; done
        [[ ! -e $DIR/found ]] || sort -u $DIR/found
        zpty -d shell
    "#;
    check("zsh", |dir, line| ask("zsh", &["-f"], program, dir, line));
}
