// The live figures by name.

import { depth } from "./depth.js";
import { formats } from "./formats.js";
import { time } from "./time.js";
import { train } from "./train.js";

export const explorables = { depth, train, time, formats };
