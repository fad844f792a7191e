// The live figures by name.

import { depth } from "./depth.js";

export const explorables = { depth };
