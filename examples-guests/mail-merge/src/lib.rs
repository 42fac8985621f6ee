//! Writes a mail for each row, from templates that are the same for the whole batch. It sends nothing: whoever submitted the batch sends what it wrote.
//!
//! A row is an object of strings, as a row of a CSV file is, and has the field `email`. In the templates `{name}` stands for the row's field `name`.

use std::collections::BTreeMap;

use rowmill_guest::{AppInfo, Batch, BatchProcessor, Failure, Message, Outcome, Row};
use serde::{Deserialize, Serialize};

/// The field with the address.
const EMAIL: &str = "email";

/// The processor. It keeps nothing between rows.
pub struct MailMerge;

/// The templates.
#[derive(Debug, Deserialize)]
pub struct Context {
    subject: String,
    text: String,
}

/// The answer to a good row.
#[derive(Debug, Serialize)]
pub struct Mail {
    to: String,
    subject: String,
    text: String,
}

type Fields = BTreeMap<String, String>;

impl BatchProcessor for MailMerge {
    type Context = Context;
    type Input = Fields;
    type Output = Mail;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self)
    }

    fn process_row(&mut self, batch: &Batch<Context>, row: Row<Fields>) -> Result<Outcome<Mail>, Failure> {
        let fields = row.input;
        let to = match fields.get(EMAIL).map(String::as_str) {
            None | Some("") => return Ok(Outcome::failed().message(Message::new("address-missing").id(1).field(EMAIL))),
            Some(address) if !is_address(address) => {
                return Ok(Outcome::failed().message(Message::new("address-malformed").id(2).field(EMAIL).value(address)));
            }
            Some(address) => address.to_owned(),
        };
        let missing = |name: &str| Message::new("field-missing").id(3).field(name);
        Ok(match (fill(&batch.context.subject, &fields), fill(&batch.context.text, &fields)) {
            (Ok(subject), Ok(text)) => Outcome::success(Mail { to, subject, text }),
            (Err(name), _) | (_, Err(name)) => Outcome::failed().message(missing(name)),
        })
    }
}

/// Whether mail could be sent there: one `@` between a name and a domain with a dot, in ASCII, and nothing that would end a header.
fn is_address(text: &str) -> bool {
    let Some((name, domain)) = text.split_once('@') else { return false };
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte));
    plain(name) && plain(domain) && domain.split('.').count() > 1 && text.split(['.', '@']).all(|part| !part.is_empty())
}

/// A template with its fields filled in, or the name of a field that the row does not have. A brace that names nothing stays as it is.
fn fill<'t>(template: &'t str, fields: &Fields) -> Result<String, &'t str> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('{')
        && let Some((name, after)) = behind.split_once('}')
    {
        filled.push_str(before);
        filled.push_str(fields.get(name).ok_or(name)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

rowmill_guest::export_batch_processor!(MailMerge);

#[cfg(test)]
mod tests;
