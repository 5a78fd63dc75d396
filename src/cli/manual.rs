//! The manual page: every command with its options, in one page.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;

/// What no option says.
const MORE: &str = r#".SH "EXIT STATUS"
0: success. 1: failure, such as bad settings, a port in use, or a gateway that does not answer. 2: wrong usage.
.SH FILES
.TP
\fI/etc/msp\-gateway/config.toml\fR
The settings of the packaged service. Every setting is explained there.
.TP
\fI/etc/msp\-gateway/secrets/\fR
Vendor keys of the packaged service, one a file.
.SH ENVIRONMENT
Each setting may be given as a variable: MSP_GATEWAY__LISTEN__PUBLIC stands for listen.public.
"#;

/// Writes the page of `command` and of every command below it, as roff.
pub fn page(command: Command, to: &mut dyn Write) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let man = Man::new(command.clone());
    man.render_title(to)?;
    man.render_name_section(to)?;
    man.render_synopsis_section(to)?;
    man.render_description_section(to)?;
    for below in command.get_subcommands() {
        section(below, to)?;
    }
    to.write_all(MORE.as_bytes())
}

/// One command, or those below it where it has some.
fn section(command: &Command, to: &mut dyn Write) -> io::Result<()> {
    if command.has_subcommands() {
        for below in command.get_subcommands() {
            section(below, to)?;
        }
        return Ok(());
    }
    let man = Man::new(command.clone());
    let mut text = Vec::new();
    man.render_description_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let name = command.get_bin_name().unwrap_or(command.get_name());
    writeln!(to, ".SH \"{}\"", name.to_uppercase().replace('-', "\\-"))?;
    for line in text.split_inclusive(|b| *b == b'\n') {
        // The parts of a command are paragraphs below its own head.
        let head = line.starts_with(b".SH ");
        to.write_all(if head { b".PP\n" } else { line })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_page_names_every_command_and_option() {
        let mut text = Vec::new();
        page(super::super::Arguments::command(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(".TH msp-gateway 1"), "{text}");
        let mut command = super::super::Arguments::command();
        command.build();
        for below in command.get_subcommands() {
            if below.get_name() == "help" {
                continue;
            }
            let head = below.get_name().to_uppercase();
            assert!(text.contains(&format!(" {head}")), "{head}: {text}");
            for option in below.get_arguments().filter_map(|a| a.get_long()) {
                let option = format!("\\-\\-{}", option.replace('-', "\\-"));
                assert!(text.contains(&option), "{head} {option}");
            }
        }
    }
}
