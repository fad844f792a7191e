// The product once more, for processors that multiply and add in one rounding.
export { multiply } from "./kernels.simd";
