//! The guide for operators names commands: each of them parses.

use clap::Parser;

use crate::Arguments;

const GUIDE: &str = include_str!("../../../docs/operating.md");
/// What stands for a hint in the guide.
const HINT: &str = "967428fddea58eb6620a9824f0cff20c/2097159/1";

/// The commands of blocks of shell, without what stands around them.
fn of_blocks() -> Vec<String> {
    let mut commands = Vec::new();
    let blocks = GUIDE.split("```sh\n").skip(1);
    for line in blocks.flat_map(|it| it.split("```").next().unwrap_or_default().lines()) {
        let line = line.split(" #").next().unwrap_or_default();
        let parts = line.split(['|', '>']).flat_map(|it| it.split("&&"));
        commands.extend(parts.map(|it| it.trim().to_owned()));
    }
    commands
}

/// Those within a sentence, with arguments that are no placeholders.
fn of_sentences() -> Vec<String> {
    let parts = GUIDE.split('`').map(|it| it.split('>').next().unwrap());
    let parts = parts.filter(|it| !it.contains(|letter: char| letter.is_ascii_uppercase()));
    let parts = parts.filter(|it| it.split_whitespace().count() > 2);
    parts.map(|it| it.replace('\n', " ")).collect()
}

#[test]
fn every_command_of_the_guide_parses() {
    let all = [of_blocks(), of_sentences()].concat();
    let ours: Vec<&String> = all.iter().filter(|it| it.starts_with("hh ")).collect();
    assert!(ours.len() > 50, "{ours:?}");
    for command in ours {
        let words = command.split_whitespace().map(|it| match it {
            "ID" => HINT,
            word => word.trim_matches('"'),
        });
        let words: Vec<&str> = words.collect();
        // Some take a socket and need one, others do not know it.
        let asked = Arguments::try_parse_from([&words[..], &["--socket", "socket"]].concat());
        let parsed = asked.or_else(|_| Arguments::try_parse_from(words));
        assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
    }
}
