//! What an application master is told when it is made.

use bobbin_types::Resource;

/// How many executors are wanted, and who decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// A fixed number, until the driver says another one.
    Static { executors: u32 },
    /// A number that follows the load, until the driver says a fixed one.
    Dynamic(DynamicAllocation),
}

/// How the number of executors follows the load. All times in milliseconds.
///
/// Source: Spark's `spark.dynamicAllocation.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicAllocation {
    pub min: u32,
    /// At least `min`.
    pub max: u32,
    /// Until the first task; within `min` and `max`.
    pub initial: u32,
    /// Source: `spark.dynamicAllocation.executorIdleTimeout`.
    pub executor_idle_timeout_ms: u64,
    /// Tasks wait so long before the first further executors are asked for.
    /// Source: `spark.dynamicAllocation.schedulerBacklogTimeout`.
    pub schedule_backlog_timeout_ms: u64,
    /// And so long before each next round.
    /// Source: `spark.dynamicAllocation.sustainedSchedulerBacklogTimeout`.
    pub sustained_backlog_timeout_ms: u64,
    /// Thousandths of the executors that would run every task at once.
    /// Source: `spark.dynamicAllocation.executorAllocationRatio`.
    pub ratio_permille: u32,
}

impl Default for DynamicAllocation {
    /// Spark's defaults.
    fn default() -> DynamicAllocation {
        DynamicAllocation {
            min: 0,
            max: u32::MAX,
            initial: 0,
            executor_idle_timeout_ms: 60_000,
            schedule_backlog_timeout_ms: 1_000,
            sustained_backlog_timeout_ms: 1_000,
            ratio_permille: 1_000,
        }
    }
}

/// When a second attempt of a slow task is started beside the first.
///
/// Source: Spark's `spark.speculation.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speculation {
    /// Between two looks at the running tasks, milliseconds.
    pub interval_ms: u64,
    /// Thousandths of the median time of a stage's tasks beyond which one is slow.
    pub multiplier_permille: u64,
    /// Thousandths of a stage's tasks that must have ended well before any of them is slow.
    pub quantile_permille: u64,
    /// No task is slow before it has run so long, milliseconds.
    pub min_runtime_ms: u64,
}

impl Default for Speculation {
    /// Defaults of Spark 4.
    fn default() -> Speculation {
        Speculation {
            interval_ms: 100,
            multiplier_permille: 3_000,
            quantile_permille: 900,
            min_runtime_ms: 100,
        }
    }
}

/// Settings of one application master. All times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub allocation: Allocation,
    /// Of one executor's container.
    pub executor_resource: Resource,
    /// Priority of the asks for executors. Source: Spark's `RM_REQUEST_PRIORITY`.
    pub priority: i32,
    /// Attempts of a task that may fail before the task has finally failed (`task.max-failures`).
    ///
    /// Source: `spark.task.maxFailures`.
    pub task_failures_max: u32,
    /// Attempts of a task that may be lost with their executor before the task has finally failed.
    pub task_losses_max: u32,
    /// A task that failed waits so long for an executor it has not failed on.
    pub retry_elsewhere_ms: u64,
    /// Copies of stragglers; `None`: none.
    pub speculation: Option<Speculation>,
    /// From the grant to the executor's registration.
    pub executor_start_ms: u64,
    /// Without any word of a registered executor, it is lost.
    pub executor_silence_ms: u64,
    /// An executor whose stream broke has so long to come back.
    pub executor_detached_ms: u64,
    /// Failures at start within `failure_window_ms` beyond which the application fails; `None` is
    /// max(2 x wanted, 3). Source: `spark.executor.maxNumFailures`.
    pub executor_failures_max: Option<u32>,
    /// Failures older than this are forgotten. Source: `spark.executor.failuresValidityInterval`.
    pub failure_window_ms: u64,
    /// Failures at start in a row after which a node is excluded.
    ///
    /// Source: `spark.excludeOnFailure.application.maxFailedExecutorsPerNode`.
    pub node_failures_max: u32,
    /// How long a node stays excluded. Source: `spark.excludeOnFailure.timeout`.
    pub exclusion_ms: u64,
    /// Pause before asking again after the resource manager offered only excluded nodes.
    pub offer_pause_ms: u64,
}

impl Config {
    /// `executors` of `resource` each, everything else at its default.
    #[must_use]
    pub fn new(executors: u32, resource: Resource) -> Config {
        Config {
            allocation: Allocation::Static { executors },
            executor_resource: resource,
            priority: 1,
            task_failures_max: 4,
            task_losses_max: 16,
            retry_elsewhere_ms: 3_000,
            speculation: None,
            executor_start_ms: 60_000,
            executor_silence_ms: 30_000,
            executor_detached_ms: 6_000,
            executor_failures_max: None,
            failure_window_ms: 10 * 60_000,
            node_failures_max: 2,
            exclusion_ms: 60 * 60_000,
            offer_pause_ms: 2_000,
        }
    }

    /// Sets `task.max-failures` and the bound on lost attempts that follows from it.
    pub fn allow_task_failures(&mut self, failures: u32) {
        self.task_failures_max = failures.max(1);
        self.task_losses_max = self.task_failures_max.saturating_mul(4);
    }
}
