//! Code blocks of the documentation, so that what it shows is what runs.

/// The blocks of this language in a text.
pub(crate) fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    let blocks = text.split(start.as_str()).skip(1);
    blocks.map(|rest| rest.split("```\n").next().expect("a piece")).collect()
}
