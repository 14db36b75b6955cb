#[derive(Debug, clap::Args)]
pub struct Args {}
pub async fn demo(_: Args) -> anyhow::Result<super::Exit> { Ok(super::Exit::Success) }
