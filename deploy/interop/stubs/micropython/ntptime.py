# The clock of this machine is right.
def settime():
    pass
