// RUN: quartic-opt %s -p fuse-kernels | filecheck %s
// RUN: quartic-opt %s -p "fuse-kernels{fuse=false}" | filecheck %s --check-prefix ALONE
// RUN: quartic-opt %s -p "fuse-kernels{pool=true}" | filecheck %s --check-prefix POOL
// RUN: quartic-opt %s -p "fuse-kernels{groups=\"conv+relu\"}" | filecheck %s --check-prefix GROUPS

// CHECK: kern.kernel "conv"
// CHECK-NEXT: qnn.conv2d
// CHECK-NEXT: qnn.relu
// CHECK-NEXT: qnn.quantize
// CHECK-NEXT: kern.yield
// CHECK: kern.kernel "pool"
// CHECK-NEXT: qnn.max_pool2d
// CHECK-NEXT: kern.yield
// CHECK: kern.view "flat"
// CHECK-NEXT: qnn.reshape
// CHECK-NEXT: kern.yield
// CHECK-NEXT: }
// CHECK-NEXT: func.return

// ALONE: kern.kernel "conv"
// ALONE-NEXT: qnn.conv2d
// ALONE-NEXT: kern.yield
// ALONE: kern.kernel "relu"
// ALONE-NEXT: qnn.relu
// ALONE-NEXT: kern.yield
// ALONE: kern.kernel "q"
// ALONE-NEXT: qnn.quantize
// ALONE-NEXT: kern.yield

// POOL: kern.kernel "conv"
// POOL-NEXT: qnn.conv2d
// POOL-NEXT: qnn.relu
// POOL-NEXT: qnn.quantize
// POOL-NEXT: qnn.max_pool2d
// POOL-NEXT: kern.yield

// GROUPS: kern.kernel "conv"
// GROUPS-NEXT: qnn.conv2d
// GROUPS-NEXT: qnn.relu
// GROUPS-NEXT: kern.yield
// GROUPS: kern.kernel "q"
// GROUPS-NEXT: qnn.quantize
// GROUPS-NEXT: kern.yield

func.func @main(%x: tensor<1x2x2x2x!qnn.int<8, 0.1, 0>>) -> tensor<1x1x!qnn.int<8, 0.1, 0>> {
  %w = qnn.constant dense<1> : tensor<1x2x1x1xi8> : tensor<1x2x1x1xi8>
  %s = qnn.constant dense<0.5> : tensor<1xf32> : tensor<1xf32>
  %0 = qnn.conv2d %x, %w, %s : (tensor<1x2x2x2x!qnn.int<8, 0.1, 0>>, tensor<1x2x1x1xi8>, tensor<1xf32>) -> tensor<1x1x2x2xf32> loc("conv | net")
  %1 = qnn.relu %0 : tensor<1x1x2x2xf32> loc("relu | net")
  %2 = qnn.quantize %1 : tensor<1x1x2x2xf32> -> tensor<1x1x2x2x!qnn.int<8, 0.1, 0>> loc("q | net")
  %3 = qnn.max_pool2d %2 kernel <2, 2> : tensor<1x1x2x2x!qnn.int<8, 0.1, 0>> -> tensor<1x1x1x1x!qnn.int<8, 0.1, 0>> loc("pool | net")
  %4 = qnn.reshape %3 : tensor<1x1x1x1x!qnn.int<8, 0.1, 0>> -> tensor<1x1x!qnn.int<8, 0.1, 0>> loc("flat | net")
  func.return %4 : tensor<1x1x!qnn.int<8, 0.1, 0>>
}
