//! Writes the manual pages and shell completions of both programs into a folder. They are made beside the programs and
//! not by them: an agent has no room for what only a package needs.
//!
//!     cargo run -p ward-collector --example manuals -- FOLDER

use std::fs::{self, File};
use std::path::Path;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).context("the folder to write to")?;
    for program in [ward_agent::command::grammar, ward_collector::command::grammar] {
        write_completions(program(), Path::new(&folder))?;
        write_manual(program(), Path::new(&folder))?;
    }
    Ok(())
}

fn write_completions(mut program: Command, folder: &Path) -> anyhow::Result<()> {
    let name = program.get_name().to_owned();
    // As dpkg names things: completions of a shell in one folder, each in its own form.
    for (shell, file) in
        [(Shell::Bash, format!("bash/{name}")), (Shell::Zsh, format!("zsh/_{name}")), (Shell::Fish, format!("fish/{name}.fish"))]
    {
        clap_complete::generate(shell, &mut program, name.clone(), &mut create(&folder.join(file))?);
    }
    Ok(())
}

/// A page for the program and one for each command.
fn write_manual(program: Command, folder: &Path) -> anyhow::Result<()> {
    let (name, program) = (program.get_name().to_owned(), program.disable_help_subcommand(true));
    let mut page = create(&folder.join(format!("man/{name}.8")))?;
    let manual = clap_mangen::Man::new(program.clone()).section("8");
    manual.render_title(&mut page)?;
    manual.render_name_section(&mut page)?;
    manual.render_synopsis_section(&mut page)?;
    manual.render_description_section(&mut page)?;
    manual.render_options_section(&mut page)?;
    manual.render_subcommands_section(&mut page)?;
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        let title = format!("{name}-{}", command.get_name());
        let command = command.clone().bin_name(format!("{name} {}", command.get_name()));
        let manual = clap_mangen::Man::new(command).title(&title).section("8");
        manual.render(&mut create(&folder.join(format!("man/{title}.8")))?)?;
    }
    Ok(())
}

fn create(path: &Path) -> anyhow::Result<File> {
    let folder = path.parent().context("a path in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    File::create(path).with_context(|| format!("writing {}", path.display()))
}
