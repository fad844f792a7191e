// The memory of the plain-JavaScript build of kernels.ts, in which load and store are functions.

let numbers;

/** Read and write this Float64Array from now on. */
export function use(memory) {
  numbers = memory;
}

export const load = (address) => numbers[address >> 3];

export const store = (address, value) => {
  numbers[address >> 3] = value;
};
