"""`./lab`. main.py and fault_commands.py declare the commands; what each one does is in the folder of its purpose.

A new command is a module in the folder where it belongs, and a declaration that imports the module only when it runs.
"""
