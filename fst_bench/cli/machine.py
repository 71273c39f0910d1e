"""doctor: what this machine has, and which presets it can run."""

from argparse import Namespace

from fst_bench.cli.parser import Commands, Result, add_command


def add_commands(commands: Commands) -> None:
    add_command(commands, "doctor", do_doctor, "what this machine has, and which presets it can run")


def do_doctor(args: Namespace) -> Result:
    from fst_bench.harness.planning import doctor

    machine = doctor.look()
    found, presets = doctor.findings(machine), doctor.presets(machine)
    for name, text in found.items():
        print(f"{name:<12}{text}")
    print("presets")
    for name, why in presets.items():
        print(f"  {name:<16}{'no: ' + '; '.join(why) if why else 'yes'}")
    return {"machine": found, "presets": presets}
