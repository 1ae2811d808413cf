# The Wi-Fi of a board, for main.py under CPython: there is always one.
STA_IF = 0


class WLAN:
    def __init__(self, interface):
        self.interface = interface

    def active(self, on):
        pass

    def isconnected(self):
        return True
