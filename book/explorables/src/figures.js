// The live figures by name.

import { depth } from "./depth.js";
import { formats } from "./formats.js";
import { order } from "./order.js";
import { time } from "./time.js";
import { train } from "./train.js";

export const explorables = { depth, order, train, time, formats };
