//! A mail for each row. A processor writes the mails; when its batch has ended this program sends them, in the order of the lines, and writes each one down before
//! it goes on to the next. Run again after a crash it goes on where it was: what is written down is not sent again.
//!
//! The mail that was on its way when the process died may be sent twice: nobody knows whether the relay had it. Its Message-ID, which is made from the batch and
//! the line, is the same both times.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use futures_util::TryStreamExt;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::Error as SmtpError;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use rowmill::jobs::BatchRequest;
use rowmill::model::{JsonText, RowStatus};
use serde::Deserialize;
use serde_json::json;

use crate::journal::{Entry, Journal};
use crate::stage::{Place, Stage, guest, in_short, row};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Customers who get a mail, but for each tenth, whose address is missing
    #[arg(long, default_value_t = 20)]
    rows: u32,
    /// The SMTP relay; without one the mails are written to files in the directory
    #[arg(long, value_name = "IP:PORT")]
    relay: Option<SocketAddr>,
    #[arg(long, default_value = "bank@example.com")]
    from: Address,
}

/// What the processor wrote.
#[derive(Deserialize)]
struct Mail {
    to: String,
    subject: String,
    text: String,
}

/// Where mails go.
enum Way {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Files(PathBuf),
}

pub async fn run(args: &Options) -> anyhow::Result<()> {
    Stage::open(&args.place, "batch-mailbatch").await?.run(async |stage| send_mails(stage, args).await).await
}

async fn send_mails(stage: &Stage, args: &Options) -> anyhow::Result<()> {
    let jobs = &stage.jobs;
    jobs.register_batch_processor("bank", "mail", guest("mail-merge")?).await?;
    let customer = |line: u32| {
        let email = if line.is_multiple_of(10) { String::new() } else { format!("customer{line}@example.com") };
        json!({"email": email, "name": format!("Jörg {line}"), "balance": format!("{line}.00 EUR")})
    };
    let rows = (1..=args.rows).map(|line| row(line, &customer(line))).collect::<Result<_, _>>()?;
    let templates = json!({"subject": "Your balance, {name}", "text": "Dear {name},\nyour balance is {balance}.\n"}).to_string();
    // By its key the batch is there once, however often this is run.
    let request = BatchRequest::new("bank", "mail").with_rows(rows).with_context(JsonText::check(templates)?);
    let id = jobs.batch_submit(request.with_key(format!("balances of {}", args.rows))).await?;
    println!("batch {id}: {}", in_short(&jobs.wait(id).await?));

    let way = Way::of(args, stage)?;
    let mut journal = Journal::open(&stage.directory.join(format!("mails-{id}.ndjson")))?;
    let before = journal.entries().len();
    println!("sent before: {before}");
    let mut rows = jobs.stream_rows(id).await?;
    while let Some(row) = rows.try_next().await? {
        if row.status != Some(RowStatus::Success) || row.line <= journal.last_line() {
            continue;
        }
        let mail: Mail = serde_json::from_str(row.output.as_deref().unwrap_or_default()).context("the processor wrote no mail")?;
        let message_id = format!("<{id}.{}@{}>", row.line, args.from.domain());
        let refused = way.send(row.line, message(&args.from, mail, &message_id)?).await?;
        journal.record(Entry { line: row.line, message_id, refused })?;
    }
    let refused = journal.entries().iter().filter(|entry| entry.refused.is_some()).count();
    println!("sent now: {}, refused by the relay: {refused}", journal.entries().len() - before);
    Ok(())
}

fn message(from: &Address, mail: Mail, message_id: &str) -> anyhow::Result<Message> {
    let to: Address = mail.to.parse().with_context(|| format!("{:?} is no address", mail.to))?;
    let headers = Message::builder().from(Mailbox::new(None, from.clone())).to(Mailbox::new(None, to)).subject(mail.subject);
    Ok(headers.message_id(Some(message_id.to_owned())).header(ContentType::TEXT_PLAIN).body(mail.text)?)
}

impl Way {
    fn of(args: &Options, stage: &Stage) -> anyhow::Result<Way> {
        // "Dangerous" is that it is not encrypted: the relay is one of this machine, or of a network that is trusted.
        if let Some(relay) = args.relay {
            let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(relay.ip().to_string()).port(relay.port());
            return Ok(Way::Smtp(transport.build()));
        }
        let directory = stage.directory.join("mails");
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        println!("no --relay: the mails go to {}", directory.display());
        Ok(Way::Files(directory))
    }

    /// Sends a mail. None when it is the relay's now; its reason when it refuses the mail for good. What has only failed for now is an error: the next run goes on here.
    async fn send(&self, line: u32, message: Message) -> anyhow::Result<Option<String>> {
        match self {
            Way::Smtp(transport) => match transport.send(message).await {
                Ok(_) => Ok(None),
                Err(error) if error.is_permanent() => Ok(Some(reason(&error))),
                Err(error) => Err(error).with_context(|| format!("the mail of line {line} was not sent; run this again to go on with it")),
            },
            Way::Files(directory) => {
                let path = directory.join(format!("{line}.eml"));
                std::fs::write(&path, message.formatted()).with_context(|| format!("cannot write {}", path.display()))?;
                Ok(None)
            }
        }
    }
}

fn reason(error: &SmtpError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
