"use strict";

// The shared worker: a tab connects whenever it is shown.

addEventListener("connect", ({ ports: [tab] }) => attend(tab));
