//! Makes the mistakes of authors in each language and prints what a person is told of each. `make mistakes` does.

use std::process::ExitCode;

use rowmill::sandbox::Sandbox;
use rowmill_tests::built::Built;
use rowmill_tests::mistakes::LANGUAGES;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let built = Built::find()?;
    let sandbox = Sandbox::new(2, &built.cache())?;
    let mut is_good = true;
    let mut tables = Vec::new();
    for language in LANGUAGES {
        let processor = sandbox.load(&std::fs::read(built.guest(language.guest)?)?)?;
        let all = language.make_all(&processor).await?;
        let without = all.iter().filter(|told| !told.has_place).count();
        is_good &= without * 5 <= all.len();
        tables.push(language.table(&all));
    }
    print!("{}", tables.join("\n"));
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
