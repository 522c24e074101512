from .command import command

if __name__ == "__main__":  # and not in the processes that it starts
    command(prog_name="python -m lab")
