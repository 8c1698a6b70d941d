//! The pages: README.md, the Markdown beside it, and all of docs/.
//!
//! Every `redis-cli` block is run through the real redis-cli, and its output must agree. A block is fenced as
//! ```` ```redis-cli ````. A line that begins with the prompt is a command; the lines up to the next prompt are what
//! redis-cli prints on a terminal, and may end in a note for the reader, `  # like this`. The blocks of a page run in
//! their order, in one session on a fresh server, so keys carry on from block to block.
//!
//! Lines must be equal, but for two kinds of integers:
//!
//! - Times, since the real clock runs. If the page shows more than 0 ms, so must the server: less by at most the
//!   time that the session took, or more by at most the 20 ms that a reader may have taken to type. A time is
//!   the fourth or fifth integer of a limiter's reply, the second of RL.MULTI's, or the value of a field `wait_ms` or
//!   `reset_ms`. RL.THROTTLE and CL.THROTTLE answer in seconds, which are equal.
//! - The field `bytes`, since allocators round up differently: at most a quarter more than the page shows.
//!
//! Relative links, their anchors included, must lead somewhere.
//!
//! The guide's Python programs are run by `guide.py`, if there is a python3 with the package redis: the variable RL_PYTHON
//! may name one.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::client::send;
use crate::server::Server;

const PROMPT: &str = "127.0.0.1:6379> ";
/// Separates an output line from a note for the reader.
const NOTE: &str = "  # ";
/// What is printed between the outputs of a session.
const MARK: &str = "-- end of output --";
/// How long the commands of a page may have taken when their output was written down.
const TYPING_MS: i64 = 20;

/// A page, as far as it is tested.
#[derive(Default)]
struct Page {
    /// The lines of its `redis-cli` blocks.
    session: Vec<String>,
    /// The targets of its links and pictures.
    links: Vec<String>,
    headings: Vec<String>,
    /// The ids given in HTML.
    ids: Vec<String>,
}

impl Page {
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let (mut in_session, mut heading) = (false, None);
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    in_session = &*language == "redis-cli";
                }
                Event::End(TagEnd::CodeBlock) => in_session = false,
                Event::Text(text) if in_session => {
                    page.session.extend(text.lines().map(str::to_owned));
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.headings.extend(heading.take()),
                Event::Text(text) | Event::Code(text) => {
                    heading.iter_mut().for_each(|heading| heading.push_str(&text));
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.to_string());
                }
                Event::Html(html) | Event::InlineHtml(html) => {
                    let ids = html.split("id=\"").skip(1).filter_map(|rest| rest.split('"').next());
                    page.ids.extend(ids.map(str::to_owned));
                }
                _ => {}
            }
        }
        page
    }

    fn examples(&self) -> Vec<Example<'_>> {
        let mut examples: Vec<Example<'_>> = Vec::new();
        for line in &self.session {
            match line.strip_prefix(PROMPT) {
                Some(command) => examples.push(Example { command, output: Vec::new() }),
                None => {
                    let output = line.split_once(NOTE).map_or(&**line, |(output, _)| output);
                    examples
                        .last_mut()
                        .expect("a prompt comes first")
                        .output
                        .push(output.trim_end());
                }
            }
        }
        examples
    }

    /// What a link may name behind its `#`: the ids, and each heading as GitHub makes it one.
    fn anchors(&self) -> BTreeSet<String> {
        let mut anchors: BTreeSet<_> = self.ids.iter().cloned().collect();
        for heading in &self.headings {
            let heading = heading.to_lowercase().replace(' ', "-");
            let slug = heading.replace(|c: char| !c.is_alphanumeric() && c != '-' && c != '_', "");
            let numbered = (1..).map(|n| format!("{slug}-{n}"));
            let mut names = std::iter::once(slug.clone()).chain(numbered);
            anchors.extend(names.find(|name| !anchors.contains(name)));
        }
        anchors
    }
}

/// A command of a page, and the lines of its output.
struct Example<'a> {
    command: &'a str,
    output: Vec<&'a str>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All pages, by path.
fn pages() -> Vec<(PathBuf, Page)> {
    let folders = [root().to_owned(), root().join("docs")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    let mut pages: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| (path.clone(), Page::parse(&read(path))))
        .collect();
    pages.sort_by(|(one, _), (other, _)| one.cmp(other));
    pages
}

/// What redis-cli prints for each of these commands, in one session: on a busy machine a process for each would take
/// so long that short limits are over before the next.
fn session(port: u16, examples: &[Example<'_>]) -> Vec<Vec<String>> {
    let program = env::var("RL_CLI").unwrap_or_else(|_| "redis-cli".into());
    let mut cli = Command::new(program)
        .args(["--no-raw", "-h", "127.0.0.1", "-p", &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli runs");
    let mut input = String::new();
    for Example { command, .. } in examples {
        input.push_str(&format!("{command}\nECHO \"{MARK}\"\n"));
    }
    cli.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = String::from_utf8(cli.wait_with_output().unwrap().stdout).unwrap();
    let mark = format!("\"{MARK}\"\n");
    let outputs = output.split_terminator(&mark);
    outputs.map(|output| output.lines().map(str::to_owned).collect()).collect()
}

/// Whether a line that redis-cli printed, in a session of `took_ms` milliseconds, is what the page shows.
fn agrees(command: &str, before: &str, shown: &str, printed: &str, took_ms: i64) -> bool {
    if shown == printed {
        return true;
    }
    let ((labels, shown), (printed_labels, printed)) = (split(shown), split(printed));
    let (Some(shown), Some(printed)) = (shown, printed) else {
        return false;
    };
    let name = command.split(' ').next().unwrap_or_default();
    let label = labels.split_whitespace().last().unwrap_or_default();
    let is_field =
        |names: &[&str]| names.iter().any(|name| before.ends_with(&format!("\"{name}\"")));
    let is_time = match name {
        "RL.INFO" => is_field(&["wait_ms", "reset_ms"]),
        "RL.MULTI" if !labels.starts_with(' ') => labels.trim() == "2)", // the rows are indented
        "RL.THROTTLE" | "CL.THROTTLE" => false,
        "RL.LEASES" => label == "3)",
        _ => name.starts_with("RL.") && (label == "4)" || label == "5)"),
    };
    let may_be = if is_time && shown > 0 {
        (shown - took_ms).max(1)..=shown + TYPING_MS
    } else if name == "RL.INFO" && is_field(&["bytes"]) {
        shown..=shown + shown / 4
    } else {
        shown..=shown
    };
    labels == printed_labels && may_be.contains(&printed)
}

/// A line's labels, ` 4) `, and its integer.
fn split(line: &str) -> (&str, Option<i64>) {
    match line.split_once("(integer) ") {
        Some((labels, integer)) => (labels, integer.parse().ok()),
        None => (line, None),
    }
}

#[test]
fn every_redis_cli_block_shows_what_redis_cli_prints() {
    let mut run = Vec::new();
    for (path, page) in pages() {
        let examples = page.examples();
        if !examples.is_empty() {
            run_page(&path, &examples);
            run.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    for name in ["README.md", "commands.md", "guide.md", "operations.md", "redis-cell.md"] {
        assert!(run.iter().any(|one| one == name), "{name} has lost its redis-cli blocks: {run:?}");
    }
}

fn run_page(path: &Path, examples: &[Example<'_>]) {
    let page = path.display();
    let server = Server::start().unwrap();
    let start = Instant::now();
    let outputs = session(server.port(), examples);
    let took_ms = start.elapsed().as_millis() as i64;
    assert_eq!(outputs.len(), examples.len(), "{page}: {outputs:#?}");
    for (Example { command, output }, printed) in examples.iter().zip(&outputs) {
        assert_eq!(printed.len(), output.len(), "{page}: {command}: {printed:#?}");
        let mut before = "";
        for (shown, printed) in output.iter().zip(printed) {
            assert!(
                agrees(command, before, shown, printed, took_ms),
                "{page}: {command}\n shown   {shown}\n printed {printed}\n in a session of {took_ms} ms"
            );
            before = shown;
        }
    }
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut checked = 0;
    for (path, page) in pages() {
        for link in page.links.iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            let page = path.display();
            assert!(target.exists(), "{page}: there is no file for the link {link}");
            if !anchor.is_empty() {
                let anchors = Page::parse(&read(target)).anchors();
                assert!(anchors.contains(anchor), "{page}: {link} is none of {anchors:#?}");
            }
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} links were found");
}

#[test]
fn the_readme_stays_short_and_leads_to_every_page_of_the_docs() {
    let path = root().join("README.md");
    let readme = read(&path);
    assert!(readme.lines().count() <= 200, "{} lines", readme.lines().count());
    let links = Page::parse(&readme).links;
    for (page, _) in pages().iter().filter(|(page, _)| *page != path) {
        let name = page.strip_prefix(root()).unwrap().to_str().unwrap();
        assert!(links.iter().any(|link| link == name), "README.md has no link to {name}");
    }
}

#[test]
fn every_command_of_the_server_is_documented_and_no_other() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let mut names: Vec<String> = send(&mut connection, "COMMAND LIST FILTERBY MODULE rl");
    names.iter_mut().for_each(|name| name.make_ascii_uppercase());
    names.retain(|name| !name.starts_with("RL._"));
    names.sort();
    assert!(!names.is_empty(), "the module has no commands");

    // The name, and its syntax behind it.
    let headings = Page::parse(&read(root().join("docs/commands.md"))).headings;
    let mut documented: Vec<_> = headings
        .iter()
        .filter_map(|heading| heading.split(' ').next())
        .filter(|name| name.starts_with("RL.") || name.starts_with("CL."))
        .collect();
    documented.sort_unstable();
    assert_eq!(documented, names);

    let readme = read(root().join("README.md"));
    for name in names {
        assert!(readme.contains(&name), "README.md does not list {name}");
    }
}

#[test]
fn the_python_programs_of_the_guide_do_what_it_says() {
    let python = env::var("RL_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_redis =
        Command::new(&python).args(["-c", "import redis"]).stderr(Stdio::null()).status();
    if !has_redis.is_ok_and(|status| status.success()) {
        println!("not tested: {python} has no package redis (RL_PYTHON may name another python3)");
        return;
    }
    let server = Server::start().unwrap();
    let output = Command::new(&python)
        .arg(root().join("tests/guide.py"))
        .arg(root().join("docs/guide.md"))
        .arg(server.port().to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The Node.js client's tests run what its own page shows. Here it must be the same.
#[test]
fn the_node_applications_are_those_that_its_tests_run() {
    let (page, own) = (read("docs/clients.md"), read("clients/node/README.md"));
    let (_, node) = page.split_once("\n## Node.js\n").unwrap();
    let shown: Vec<&str> = node.split("```").skip(1).step_by(2).collect();
    assert!(shown.len() >= 7, "the page shows {} blocks", shown.len());
    for block in shown {
        assert!(
            own.contains(&format!("```{block}```")),
            "clients/node/README.md has not:\n{block}"
        );
    }
}

#[test]
fn every_setting_is_documented_with_its_default() {
    let server = Server::start().unwrap();
    let mut connection = server.connection().unwrap();
    let settings: Vec<(String, String)> = send(&mut connection, "CONFIG GET rl.*");
    assert!(!settings.is_empty(), "the module has no settings");
    let page = read(root().join("docs/operations.md"));
    for (name, default) in settings {
        let row = format!("\n| `{name}` | {default} |");
        assert!(page.contains(&row), "docs/operations.md has no row {row}");
    }
}

#[test]
fn only_the_fenced_redis_cli_blocks_are_examples() {
    let page = Page::parse(
        "```text\n127.0.0.1:6379> A\n```\n127.0.0.1:6379> B\n\n```redis-cli\n\
         127.0.0.1:6379> C 'd  # e'\n1) x   # a note\n2) y\n127.0.0.1:6379> F\n```\n3) z\n",
    );
    let found: Vec<_> = page.examples().into_iter().map(|e| (e.command, e.output)).collect();
    assert_eq!(found, [("C 'd  # e'", vec!["1) x", "2) y"]), ("F", vec![])]);
    let page = Page::parse("# No blocks\n```text\n127.0.0.1:6379> A\n```\n");
    assert!(page.examples().is_empty());
}

#[test]
fn links_and_anchors_are_found_as_github_makes_them() {
    let page = Page::parse(
        "# What `t` means, in short\n## Twice\n## Twice\n<a id=\"an.id\"></a>\n\n\
         [a](b.md#c) ![d](e.svg) `[not](one.md)`\n\n| x |\n| --- |\n| [f](#g) |\n",
    );
    assert_eq!(page.links, ["b.md#c", "e.svg", "#g"]);
    let anchors: Vec<_> = page.anchors().into_iter().collect();
    assert_eq!(anchors, ["an.id", "twice", "twice-1", "what-t-means-in-short"]);
}

#[test]
fn the_comparison_lets_times_differ_by_what_the_session_took_and_nothing_else() {
    let sliding = |shown, printed| agrees("RL.SLIDING k 5 1m", "", shown, printed, 500);
    assert!(sliding("4) (integer) 59990", "4) (integer) 59490"));
    assert!(!sliding("4) (integer) 59990", "4) (integer) 59489"));
    assert!(sliding("4) (integer) 59990", "4) (integer) 60010"));
    assert!(!sliding("4) (integer) 59990", "4) (integer) 60011"));
    assert!(!sliding("4) (integer) 59990", "5) (integer) 59990"));
    assert!(!sliding("4) (integer) 59990", "4) (nil)"));
    assert!(sliding("5) (integer) 9", "5) (integer) 1"));
    assert!(!sliding("5) (integer) 9", "5) (integer) 0"));
    assert!(!sliding("4) (integer) 0", "4) (integer) 1"));
    assert!(!sliding("4) (integer) -1", "4) (integer) 0"));
    assert!(!sliding("3) (integer) 1", "3) (integer) 2"));
    assert!(!sliding("(nil)", "4) (integer) 2"));

    let throttle = |shown, printed| agrees("CL.THROTTLE k 15 30 60", "", shown, printed, 500);
    assert!(!throttle("5) (integer) 2", "5) (integer) 1"));
    let foreign = |shown, printed| agrees("LRANGE k 0 9", "", shown, printed, 500);
    assert!(!foreign("5) (integer) 2", "5) (integer) 1"));

    let info = |before, printed| agrees("RL.INFO k", before, "5) (integer) 48", printed, 10);
    assert!(info("4) \"wait_ms\"", "5) (integer) 38"));
    assert!(!info("4) \"wait_ms\"", "5) (integer) 37"));
    assert!(info("4) \"bytes\"", "5) (integer) 60"));
    assert!(!info("4) \"bytes\"", "5) (integer) 61"));
    assert!(!info("4) \"bytes\"", "5) (integer) 47"));
    assert!(!info("4) \"used\"", "5) (integer) 47"));

    let leases = |shown, printed| agrees("RL.LEASES k", "", shown, printed, 500);
    assert!(leases("   3) (integer) 9", "   3) (integer) 8"));
    assert!(!leases("   2) (integer) 9", "   2) (integer) 8"));
    assert!(!leases("1) 1) \"a\"", "1) 1) \"b\""));

    let settle = |shown, printed| agrees("RL.SETTLE 1 k 9 8", "", shown, printed, 500);
    assert!(settle("   5) (integer) 9", "   5) (integer) 8"));
    assert!(!settle("   3) (integer) 9", "   3) (integer) 8"));

    let multi = |shown, printed| agrees("RL.MULTI 1 k SLIDING 1 1", "", shown, printed, 500);
    assert!(multi("2) (integer) 9", "2) (integer) 8"));
    assert!(multi("   4) (integer) 9", "   4) (integer) 8"));
    assert!(!multi("   2) (integer) 9", "   2) (integer) 8"));
    assert!(!multi("3) (integer) 0", "3) (integer) 1"));
}
