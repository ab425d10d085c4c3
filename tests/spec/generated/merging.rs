//! What holds for merging, over files that nobody wrote.
//!
//! Files are merged from the first to the last, so that what the first ones make can stand for them; that is the one grouping
//! which the specification knows. The last ones by themselves are no project, and what they would make is said nowhere: of two
//! loggings without a driver the options are merged, of two with different ones they are not.

use orch::load::render_json;

use super::Case;
use super::grammar::{Dice, Grammar};
use crate::project::Project;
use crate::properties::{for_the_first_files, placeless};

/// Returns a project of a file and two over it.
fn three_files(grammar: &Grammar, seed: u64) -> Project {
    let dice = &mut Dice::new(seed);
    let (first, further) = if dice.once_in(4) { ("own-document", "own-override") } else { ("document", "override") };
    let texts = [first, further, further].map(|name| grammar.text(name, dice, 0));
    Case { texts: texts.to_vec(), profiles: vec!["*".to_owned()], flags: &[] }.project()
}

#[test]
fn what_the_first_two_files_make_stands_for_them_before_a_third() {
    let (grammar, mut compared, mut alone) = (Grammar::new(), 0, Vec::new());
    for seed in 0..1_500 {
        let mut project = three_files(&grammar, seed);
        project.request.options.contents = false;
        // Files of labels are beneath the labels of all files, so that they are no part of what the first ones make.
        let files = &project.files.files;
        let of_labels = files.values().any(|text| String::from_utf8_lossy(text).contains("label_file"));
        let Ok(whole) = project.load() else { continue };
        if of_labels {
            continue;
        }
        let request = project.request.clone();
        project.request = for_the_first_files(&request, &request.files[..2]);
        // Alone they may be wrong.
        let first = match project.load() {
            Ok(first) => first,
            Err(problems) => {
                alone.push(problems.iter().next().map(|problem| problem.message.clone()).unwrap_or_default());
                continue;
            }
        };
        let text = render_json(&first.model);
        project.files.files.insert("/project/first.json".into(), text.clone().into_bytes());
        project.request = request;
        project.request.files = vec!["first.json".to_owned(), project.request.files[2].clone()];
        let again = project.load().unwrap_or_else(|problems| panic!("seed {seed}\n{text}\n{problems}"));
        assert_eq!(placeless(again.model), placeless(whole.model), "seed {seed}\n{text}");
        compared += 1;
    }
    assert!(compared > 150, "only {compared} projects were compared; refused alone: {alone:#?}");
}

#[test]
fn an_empty_file_over_them_changes_nothing() {
    let (grammar, mut compared) = (Grammar::new(), 0);
    for seed in 0..600 {
        let mut project = three_files(&grammar, seed);
        project.request.options.contents = false;
        let Ok(before) = project.load() else { continue };
        for (index, text) in
            ["", "{}", "services: {}\n", "services: {}\nvolumes: {}\n", "# nothing\n"].into_iter().enumerate()
        {
            project.files.files.insert(format!("/project/empty{index}.yaml").into(), text.into());
            project.request.files.push(format!("empty{index}.yaml"));
        }
        let after = project.load().unwrap_or_else(|problems| panic!("seed {seed}\n{problems}"));
        assert_eq!(before.model, after.model, "seed {seed}");
        compared += 1;
    }
    assert!(compared > 80, "only {compared} projects were compared");
}
