import { start as answers } from "./answers.js";
import { start as predict } from "./predict.js";
import { start as progress } from "./progress.js";

predict();
answers();
progress();
