#include "cpu/aggregate_kernels.h"

namespace gag_fast {
extern const AggregateTables aggregate_baseline = kTables;
}  // namespace gag_fast
