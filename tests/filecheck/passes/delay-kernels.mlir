// RUN: quartic-opt %s -p "fuse-kernels{fuse=false},delay-kernels" --split-input-file | filecheck %s

// A skip connection as large as what it is made of waits for its reader.
// CHECK-LABEL: @main
// CHECK: %[[S:.*]] = kern.kernel "source"
// CHECK: kern.kernel "a" (%{{.*}} = %[[S]])
// CHECK: kern.kernel "b"
// CHECK: %[[SKIP:.*]] = kern.kernel "skip" (%{{.*}} = %[[S]])
// CHECK: kern.kernel "sum"
func.func @main(%x: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %0 = qnn.relu %x : tensor<4x4xf32> loc("source | net")
  %1 = qnn.sigmoid %0 : tensor<4x4xf32> loc("skip | net")
  %2 = qnn.hardswish %0 : tensor<4x4xf32> loc("a | net")
  %3 = qnn.hardswish %2 : tensor<4x4xf32> loc("b | net")
  %4 = qnn.add %3, %1 : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32> loc("sum | net")
  func.return %4 : tensor<4x4xf32>
}

// -----

// A smaller one stays: it would keep alive what it is made of.
// CHECK-LABEL: @main
// CHECK: kern.kernel "source"
// CHECK: kern.kernel "skip"
// CHECK: kern.kernel "a"
// CHECK: kern.kernel "b"
// CHECK: kern.kernel "sum"
func.func @main(%x: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %0 = qnn.relu %x : tensor<4x4xf32> loc("source | net")
  %1 = qnn.reduce "max" %0 axis 1 keepdim : tensor<4x4xf32> -> tensor<4x1xf32> loc("skip | net")
  %2 = qnn.hardswish %0 : tensor<4x4xf32> loc("a | net")
  %3 = qnn.hardswish %2 : tensor<4x4xf32> loc("b | net")
  %4 = qnn.add %3, %1 : (tensor<4x4xf32>, tensor<4x1xf32>) -> tensor<4x4xf32> loc("sum | net")
  func.return %4 : tensor<4x4xf32>
}

// -----

// Unless that is alive anyway: here a kernel behind reads it too.
// CHECK-LABEL: @main
// CHECK: kern.kernel "source"
// CHECK: kern.kernel "a"
// CHECK: kern.kernel "skip"
// CHECK: kern.kernel "sum"
// CHECK: kern.kernel "last"
func.func @main(%x: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %0 = qnn.relu %x : tensor<4x4xf32> loc("source | net")
  %1 = qnn.reduce "max" %0 axis 1 keepdim : tensor<4x4xf32> -> tensor<4x1xf32> loc("skip | net")
  %2 = qnn.hardswish %0 : tensor<4x4xf32> loc("a | net")
  %3 = qnn.add %2, %1 : (tensor<4x4xf32>, tensor<4x1xf32>) -> tensor<4x4xf32> loc("sum | net")
  %4 = qnn.mul %3, %0 : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32> loc("last | net")
  func.return %4 : tensor<4x4xf32>
}

// -----

// A join is names for bytes: it stands at its reader, and what it names waits with it.
// CHECK-LABEL: @main
// CHECK: kern.kernel "a"
// CHECK: kern.kernel "b"
// CHECK: %[[SKIP:.*]] = kern.kernel "skip"
// CHECK: %[[JOIN:.*]] = kern.concat "join" %[[SKIP]], %[[SKIP]] axis 1
// CHECK: kern.kernel "sum"
func.func @main(%x: tensor<4x4xf32>, %y: tensor<8x4xf32>) -> tensor<8x4xf32> {
  %0 = qnn.sigmoid %x : tensor<4x4xf32> loc("skip | net")
  %1 = qnn.concat %0, %0 axis 1 : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x8xf32> loc("join | net")
  %2 = qnn.reshape %1 : tensor<4x8xf32> -> tensor<8x4xf32> loc("view | net")
  %3 = qnn.hardswish %y : tensor<8x4xf32> loc("a | net")
  %4 = qnn.hardswish %3 : tensor<8x4xf32> loc("b | net")
  %5 = qnn.add %4, %2 : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32> loc("sum | net")
  func.return %5 : tensor<8x4xf32>
}
